//! A program that is a log driver and nothing else: `log_driver log-driver FOLDER`.

use minik8s_runtime::containerd::log_driver;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(word) if word == log_driver::ARGUMENT => log_driver::run(arguments),
        _ => Err(std::io::Error::other("this program is started by containerd")),
    }
}
