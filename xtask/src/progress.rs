//! What a person sees of the work.

use std::io::{IsTerminal, Write};
use std::time::Instant;

/// A step that takes a while: its name now, a tick and the time when it is done.
pub fn step<T>(what: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let terminal = std::io::stderr().is_terminal();
    if terminal {
        write(&format!("  … {what}"));
    }
    let began = Instant::now();
    let result = work();
    let seconds = began.elapsed().as_secs_f32();
    let start = if terminal { "\r\x1b[K" } else { "" };
    match &result {
        Ok(_) => write(&format!("{start}  {} {what} ({seconds:.1} s)\n", paint("32", "✓"))),
        Err(_) => write(&format!("{start}  {} {what} ({seconds:.1} s)\n", paint("31", "✗"))),
    }
    result
}

/// A line for the person.
pub fn say(text: &str) {
    write(&format!("{text}\n"));
}

/// What went wrong.
pub fn error(text: &str) {
    write(&format!("{} {text}\n", paint("31", "error:")));
}

fn paint(colour: &str, text: &str) -> String {
    if std::io::stderr().is_terminal() { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
}

fn write(text: &str) {
    let mut out = std::io::stderr().lock();
    // Nobody is left to be told if this fails.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
