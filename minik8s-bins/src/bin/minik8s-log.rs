//! `minik8s-log`: writes one container's output to its log file. containerd starts it for every container, so it is a
//! program of its own: a tenth of the memory of `minik8s log-driver`, which does the same where this is not installed.

use std::process::ExitCode;

use minik8s_runtime::containerd::log_driver;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let done = match arguments.next() {
        Some(word) if word == log_driver::ARGUMENT => log_driver::run(arguments),
        _ => Err(std::io::Error::other("this program is started by containerd")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is gone too, nobody is left to be told.
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("minik8s-log: {error}\n"));
            ExitCode::FAILURE
        }
    }
}
