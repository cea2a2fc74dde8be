use std::os::unix::fs::symlink;
use std::thread;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::*;

/// A container's folder with FIFOs, and a driver at work in it.
struct Trial {
    root: tempfile::TempDir,
    folder: PathBuf,
    driver: thread::JoinHandle<io::Result<()>>,
    stdout: File,
    stderr: File,
}

impl Trial {
    fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        // Longer than the address of a socket may be.
        let folder = root.path().join("x".repeat(120));
        fs::create_dir(&folder).unwrap();
        symlink(root.path().join("0.log"), folder.join(LOG)).unwrap();
        for name in [STDOUT, STDERR] {
            mkfifo(&folder.join(name), Mode::S_IRWXU).unwrap();
        }
        let driver = thread::spawn({
            let folder = folder.clone();
            move || run([folder])
        });
        let open = |name| OpenOptions::new().write(true).open(folder.join(name)).unwrap();
        let (stdout, stderr) = (open(STDOUT), open(STDERR));
        Self { root, folder, driver, stdout, stderr }
    }

    fn attach(&self) -> UnixStream {
        let dir = File::open(&self.folder).unwrap();
        UnixStream::connect(short_path(&dir, ATTACH)).unwrap()
    }

    fn finish(self) -> tempfile::TempDir {
        drop((self.stdout, self.stderr));
        self.driver.join().unwrap().unwrap();
        self.root
    }
}

fn frame(client: &mut UnixStream) -> (u8, Vec<u8>) {
    let mut head = [0; 5];
    client.read_exact(&mut head).unwrap();
    let length = u32::from_be_bytes(head[1..].try_into().unwrap());
    let mut bytes = vec![0; length as usize];
    client.read_exact(&mut bytes).unwrap();
    (head[0], bytes)
}

/// The lines of a log without their times, which must be sound.
fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let plain = |line: &str| {
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.parse::<jiff::Timestamp>().is_ok() && time.len() == 30, "{time}");
        rest.to_owned()
    };
    text.lines().map(plain).collect()
}

#[test]
fn both_outputs_reach_the_log_and_whoever_is_attached() {
    let mut trial = Trial::start();
    let mut client = trial.attach();
    // The answer shows that the driver knows this client.
    client.write_all(&[REOPEN]).unwrap();
    assert_eq!(frame(&mut client), (0, vec![]));
    trial.stdout.write_all(b"hello\npart").unwrap();
    assert_eq!(
        frame(&mut client),
        (1, b"hello\npart".to_vec()),
        "a prompt does not wait for its line to end"
    );
    trial.stderr.write_all(b"oh\n").unwrap();
    assert_eq!(frame(&mut client), (2, b"oh\n".to_vec()));
    let root = trial.finish();
    let log = lines(&root.path().join("0.log"));
    assert_eq!(log, ["stdout F hello", "stderr F oh", "stdout P part"]);
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "the end of the container is the end of the connection");
}

#[test]
fn a_renamed_log_is_left_and_a_new_one_begun() {
    let mut trial = Trial::start();
    let log = trial.root.path().join("0.log");
    let old = trial.root.path().join("0.log.old");
    let mut client = trial.attach();
    client.write_all(&[REOPEN]).unwrap();
    frame(&mut client);
    trial.stdout.write_all(b"one\n").unwrap();
    frame(&mut client);
    fs::rename(&log, &old).unwrap();
    client.write_all(&[REOPEN]).unwrap();
    assert_eq!(frame(&mut client), (0, vec![]));
    assert!(log.exists(), "the new file is there before anything is written");
    trial.stdout.write_all(b"two\n").unwrap();
    frame(&mut client);
    // And once more without a word to the driver.
    fs::remove_file(&log).unwrap();
    trial.stdout.write_all(b"three\n").unwrap();
    frame(&mut client);
    let root = trial.finish();
    assert_eq!(lines(&old), ["stdout F one"]);
    assert_eq!(lines(&root.path().join("0.log")), ["stdout F three"]);
}

#[test]
fn a_client_that_does_not_read_is_cut_off_and_the_container_goes_on() {
    let mut trial = Trial::start();
    let mut slow = trial.attach();
    slow.write_all(&[REOPEN]).unwrap();
    frame(&mut slow);
    let line = [b'x'; 1023];
    let total = 4096;
    for _ in 0..total {
        trial.stdout.write_all(&line).unwrap();
        trial.stdout.write_all(b"\n").unwrap();
    }
    let root = trial.finish();
    assert_eq!(lines(&root.path().join("0.log")).len(), total);
    let mut got = Vec::new();
    slow.read_to_end(&mut got).unwrap();
    assert!(got.len() < total * 1024, "4 MiB do not fit into the buffer of a client that does not read");
}

#[test]
fn the_argument_is_one_folder() {
    let none: [&str; 0] = [];
    assert_eq!(run(none).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(run(["/a", "/b"]).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(run(["/nonexistent/folder"]).unwrap_err().kind(), ErrorKind::NotFound);
}
