//! `protoc -o OUT -I DIR… FILE…` on top of [`protox`]: the subset that `prost-build` calls.

use std::path::PathBuf;
use std::process::ExitCode;

/// What `prost-build` asks of a protobuf compiler.
#[derive(Default)]
struct Invocation {
    includes: Vec<PathBuf>,
    files: Vec<PathBuf>,
    output: Option<PathBuf>,
}

impl Invocation {
    fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut invocation = Self::default();
        let mut args = args.peekable();
        while let Some(arg) = args.next() {
            let mut value = |flag: &str| args.next().ok_or(format!("{flag} needs a value"));
            match arg.as_str() {
                "-o" => invocation.output = Some(value("-o")?.into()),
                "-I" => invocation.includes.push(value("-I")?.into()),
                flag if flag.starts_with("-I") => invocation.includes.push(flag[2..].into()),
                // protox always includes imports and source info, and knows proto3 `optional`.
                flag if flag.starts_with('-') => {}
                file => invocation.files.push(file.into()),
            }
        }
        Ok(invocation)
    }

    fn run(self) -> Result<(), String> {
        let output = self.output.ok_or("-o is missing: only descriptor sets can be written")?;
        let mut compiler = protox::Compiler::new(&self.includes).map_err(|e| e.to_string())?;
        compiler.include_imports(true).include_source_info(true);
        compiler.open_files(&self.files).map_err(|e| e.to_string())?;
        std::fs::write(&output, compiler.encode_file_descriptor_set())
            .map_err(|e| format!("cannot write {}: {e}", output.display()))
    }
}

fn main() -> ExitCode {
    let done = Invocation::parse(std::env::args().skip(1)).and_then(Invocation::run);
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ =
                std::io::Write::write_all(&mut std::io::stderr(), format!("protoc: {message}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}
