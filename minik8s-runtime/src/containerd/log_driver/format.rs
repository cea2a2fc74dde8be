//! Lines of output as CRI log files have them: `TIME STREAM TAG TEXT`.

/// A longer line is written in parts of this many bytes, all but the last tagged `P`.
pub(super) const MAX_LINE: usize = 16 * 1024;

/// One of a container's outputs, cut into lines.
#[derive(Debug)]
pub(super) struct Lines {
    stream: &'static str,
    pending: Vec<u8>,
}

impl Lines {
    pub(super) fn new(stream: &'static str) -> Self {
        Self { stream, pending: Vec::new() }
    }

    /// Takes in what was read and appends the complete lines, stamped `time`, to `out`.
    pub(super) fn push(&mut self, mut bytes: &[u8], time: &str, out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let room = MAX_LINE - self.pending.len();
            let newline = bytes.iter().take(room + 1).position(|&b| b == b'\n');
            match newline {
                Some(at) => {
                    self.write("F", time, &bytes[..at], out);
                    bytes = &bytes[at + 1..];
                }
                None if bytes.len() > room => {
                    self.write("P", time, &bytes[..room], out);
                    bytes = &bytes[room..];
                }
                None => {
                    self.pending.extend_from_slice(bytes);
                    return;
                }
            }
        }
    }

    /// The output has ended: appends what is left of a line that never ended.
    pub(super) fn finish(&mut self, time: &str, out: &mut Vec<u8>) {
        if !self.pending.is_empty() {
            self.write("P", time, &[], out);
        }
    }

    fn write(&mut self, tag: &str, time: &str, rest: &[u8], out: &mut Vec<u8>) {
        for part in [time, " ", self.stream, " ", tag, " "] {
            out.extend_from_slice(part.as_bytes());
        }
        out.append(&mut self.pending);
        out.extend_from_slice(rest);
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(parts: &[&[u8]]) -> String {
        let mut lines = Lines::new("stdout");
        let mut out = Vec::new();
        for part in parts {
            lines.push(part, "T", &mut out);
        }
        lines.finish("T", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_whole_however_they_arrive() {
        let want = "T stdout F one\nT stdout F \nT stdout F two\nT stdout P rest\n";
        assert_eq!(feed(&[b"one\n\ntwo\nrest"]), want);
        assert_eq!(feed(&[b"on", b"e", b"\n", b"\nt", b"wo\nre", b"st"]), want);
        assert_eq!(feed(&[]), "");
    }

    #[test]
    fn long_lines_are_cut() {
        let line = [b'x'; 2 * MAX_LINE + 5];
        let mut with_end = line.to_vec();
        with_end.push(b'\n');
        let out = feed(&[&with_end]);
        let parts: Vec<(&str, usize)> =
            out.lines().map(|line| (&line[9..10], line.len() - "T stdout P ".len())).collect();
        assert_eq!(parts, [("P", MAX_LINE), ("P", MAX_LINE), ("F", 5)]);
    }

    #[test]
    fn a_line_that_just_fits_is_not_cut() {
        let mut line = vec![b'x'; MAX_LINE];
        line.push(b'\n');
        let whole = feed(&[&line]);
        assert_eq!(whole.lines().count(), 1);
        assert!(whole.starts_with("T stdout F "));
        assert_eq!(feed(&[&line[..MAX_LINE], b"\n"]), whole, "however it arrives");
    }
}
