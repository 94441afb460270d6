//! The containers' output, as containerd writes it to files (the CRI log format:
//! `<time> <stdout|stderr> <P|F> <text>`), on our own standard output and error.
//!
//! The text is the workload's and goes out as it is, behind the container's name; a
//! line that came in parts is joined first. Files are replaced before they grow
//! beyond what a node has room for.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use crate::progress::Progress;

/// A file is replaced when this much of it was read.
const ROTATE_BYTES: u64 = 64 << 20;

/// A longer line is written in pieces.
const MOST_LINE_BYTES: usize = 1 << 20;

/// Read at once, so that one loud container does not hold up the others.
const MOST_READ_BYTES: u64 = 4 << 20;

/// What a look at a log file brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing new.
    Nothing,
    /// All that was new.
    New,
    /// Some of what is new; the rest is there already.
    Part,
}

/// The stream that a piece of output was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Stdout,
    Stderr,
}

/// One line of a log file.
#[derive(Debug, PartialEq, Eq)]
struct Entry<'a> {
    output: Output,
    whole: bool,
    text: &'a [u8],
}

impl<'a> Entry<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.splitn(4, |b| *b == b' ');
        let _time = fields.next()?;
        let output = match fields.next()? {
            b"stdout" => Output::Stdout,
            b"stderr" => Output::Stderr,
            _ => return None,
        };
        let tags = fields.next()?;
        Some(Self {
            output,
            whole: tags.split(|b| *b == b':').next() != Some(b"P"),
            text: fields.next().unwrap_or_default(),
        })
    }
}

/// Joins parts to lines.
#[derive(Debug, Default)]
struct Joiner {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Joiner {
    /// Takes one line of the file; gives a line of output when one is complete.
    fn push(&mut self, line: &[u8]) -> Option<(Output, Vec<u8>)> {
        // What is not in the format is shown rather than lost.
        let entry = Entry::parse(line).unwrap_or(Entry {
            output: Output::Stderr,
            whole: true,
            text: line,
        });
        let open = match entry.output {
            Output::Stdout => &mut self.stdout,
            Output::Stderr => &mut self.stderr,
        };
        open.extend_from_slice(entry.text);
        (entry.whole || open.len() >= MOST_LINE_BYTES).then(|| (entry.output, std::mem::take(open)))
    }

    /// What has no end yet.
    fn finish(&mut self) -> impl Iterator<Item = (Output, Vec<u8>)> {
        [
            (Output::Stdout, std::mem::take(&mut self.stdout)),
            (Output::Stderr, std::mem::take(&mut self.stderr)),
        ]
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
    }
}

/// Follows the log of one container.
#[derive(Debug)]
pub(crate) struct Follower {
    path: PathBuf,
    file: Option<fs::File>,
    read: u64,
    /// A line of the file of which the end is not there yet.
    tail: Vec<u8>,
    joiner: Joiner,
    prefix: String,
    progress: Progress,
}

impl Follower {
    pub(crate) fn new(path: PathBuf, container: &str, progress: Progress) -> Self {
        Self {
            path,
            file: None,
            read: 0,
            tail: Vec::new(),
            joiner: Joiner::default(),
            prefix: format!("[{container}] "),
            progress,
        }
    }

    /// Writes out what is new.
    pub(crate) fn follow(&mut self) -> io::Result<Look> {
        let Some(file) = self.open()? else {
            return Ok(Look::Nothing);
        };
        let mut bytes = Vec::new();
        let count = file.take(MOST_READ_BYTES).read_to_end(&mut bytes)?;
        self.read += u64::try_from(count).unwrap_or(u64::MAX);
        self.tail.extend_from_slice(&bytes);
        let complete = self
            .tail
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        let rest = self.tail.split_off(complete);
        let lines = std::mem::replace(&mut self.tail, rest);
        let mut found = Vec::new();
        for line in lines.split_inclusive(|b| *b == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            found.extend(self.joiner.push(line));
        }
        self.write(&found)?;
        Ok(match u64::try_from(count) {
            Ok(0) => Look::Nothing,
            Ok(MOST_READ_BYTES) => Look::Part,
            _ => Look::New,
        })
    }

    /// Writes out all that is there by now.
    fn catch_up(&mut self) -> io::Result<()> {
        while self.follow()? == Look::Part {}
        Ok(())
    }

    /// Writes out everything that is left.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.catch_up()?;
        if !self.tail.is_empty() {
            let line = std::mem::take(&mut self.tail);
            let found: Vec<_> = self.joiner.push(&line).into_iter().collect();
            self.write(&found)?;
        }
        let open: Vec<_> = self.joiner.finish().collect();
        self.write(&open)
    }

    /// True when the file has to be replaced; then the old one is out of the way, and
    /// after the runtime has opened a new one [`Self::rotated`] has to be called.
    pub(crate) fn rotate(&mut self) -> io::Result<bool> {
        if self.read < ROTATE_BYTES {
            return Ok(false);
        }
        fs::rename(&self.path, old_path(&self.path))?;
        Ok(true)
    }

    /// Reads the rest of the old file and goes on with the new one.
    pub(crate) fn rotated(&mut self) -> io::Result<()> {
        self.catch_up()?;
        self.file = None;
        self.read = 0;
        fs::remove_file(old_path(&self.path))
    }

    fn open(&mut self) -> io::Result<Option<&mut fs::File>> {
        if self.file.is_none() {
            match fs::File::open(&self.path) {
                Ok(file) => self.file = Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.file.as_mut())
    }

    fn write(&self, lines: &[(Output, Vec<u8>)]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let _clear = self.progress.clear();
        for (output, text) in lines {
            let line = [self.prefix.as_bytes(), text, b"\n"].concat();
            match output {
                Output::Stdout => io::stdout().write_all(&line)?,
                Output::Stderr => io::stderr().write_all(&line)?,
            }
        }
        io::stdout().flush()
    }
}

fn old_path(path: &Path) -> PathBuf {
    path.with_extension("old")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(file: &str) -> Vec<(Output, String)> {
        let mut joiner = Joiner::default();
        let mut lines: Vec<_> = file
            .lines()
            .filter_map(|l| joiner.push(l.as_bytes()))
            .collect();
        lines.extend(joiner.finish());
        let text = |(output, bytes)| (output, String::from_utf8(bytes).unwrap());
        lines.into_iter().map(text).collect()
    }

    #[test]
    fn parts_are_joined_for_each_stream() {
        let file = "t stdout P a\nt stderr F e\nt stdout P b\nt stdout F c d \nt stdout F \nt stderr P open\n";
        let expected = [
            (Output::Stderr, "e"),
            (Output::Stdout, "abc d "),
            (Output::Stdout, ""),
            (Output::Stderr, "open"),
        ];
        assert_eq!(joined(file), expected.map(|(o, t)| (o, t.to_owned())));
    }

    #[test]
    fn what_is_not_in_the_format_is_shown() {
        for line in ["garbage", "t nowhere F x", "t stdout"] {
            assert_eq!(joined(line), [(Output::Stderr, line.to_owned())]);
        }
    }

    #[test]
    fn a_line_without_end_is_written_in_pieces() {
        let mut joiner = Joiner::default();
        let part = [b"t stdout P ".as_slice(), &[b'x'; 16 << 10]].concat();
        let pieces = (0..128).filter_map(|_| joiner.push(&part)).count();
        assert_eq!(pieces, 2);
    }

    #[test]
    fn a_file_is_followed_from_before_it_exists_and_over_a_replacement() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let mut follower = Follower::new(path.clone(), "c", Progress::silent());
        assert_eq!(follower.follow().unwrap(), Look::Nothing);

        fs::write(&path, "t stdout F one\nt stdout F hal").unwrap();
        assert_eq!(follower.follow().unwrap(), Look::New);
        assert_eq!(follower.tail, b"t stdout F hal");
        assert_eq!(follower.follow().unwrap(), Look::Nothing);
        assert!(!follower.rotate().unwrap());

        follower.read = ROTATE_BYTES;
        assert!(follower.rotate().unwrap());
        let mut old = fs::OpenOptions::new()
            .append(true)
            .open(old_path(&path))
            .unwrap();
        old.write_all(b"f\n").unwrap();
        fs::write(&path, "t stdout F three\n").unwrap();
        follower.rotated().unwrap();
        assert!(follower.tail.is_empty() && !old_path(&path).exists());
        follower.finish().unwrap();
        assert_eq!(follower.read, 17);
    }

    proptest::proptest! {
        #[test]
        fn no_line_panics_or_is_lost(line in proptest::collection::vec(0_u8..=255, 0..64)) {
            let mut joiner = Joiner::default();
            let found: Vec<_> = joiner.push(&line).into_iter().chain(joiner.finish()).collect();
            let parts = line.splitn(4, |b| *b == b' ').count();
            proptest::prop_assert!(!found.is_empty() || line.is_empty() || parts <= 4);
        }
    }
}
