//! The work itself: each stage alone, on one thread, in its best known implementation.
//!
//! Their sum is what a pull cannot avoid. Input comes from memory and reading it is
//! not counted; files are made with the fewest system calls there are.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use aws_lc_rs::{
    cipher::{AES_256, DecryptionContext, StreamingDecryptingKey, UnboundCipherKey},
    digest, hmac,
    iv::FixedLength,
};
use clap::Args;
use nix::time::{ClockId, clock_gettime};
use rustix::fs::{CWD, Mode, OFlags, Timespec, Timestamps, futimens, mkdirat, openat};
use serde::{Deserialize, Serialize};

use crate::{
    images::{Compression, Image},
    ours::seconds,
    place::{path, take_memory},
    process,
};

const CHUNK: usize = 256 * 1024;

/// One layer.
#[derive(Debug, Args)]
pub(crate) struct StageOptions {
    stored: PathBuf,
    tar: PathBuf,
    #[arg(value_enum)]
    compression: Compression,
    /// Where files are made.
    directory: PathBuf,
}

/// CPU seconds of each stage.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Stages {
    pub(crate) hash_stored: f64,
    pub(crate) mac: f64,
    pub(crate) decrypt: f64,
    pub(crate) inflate: f64,
    pub(crate) hash_unpacked: f64,
    pub(crate) write: f64,
}

impl Stages {
    /// The stages that an image has, by name.
    pub(crate) fn of(&self, encrypted: bool) -> Vec<(&'static str, f64)> {
        let mut all = vec![
            ("hash_stored", self.hash_stored),
            ("inflate", self.inflate),
            ("hash_unpacked", self.hash_unpacked),
            ("write", self.write),
        ];
        if encrypted {
            all.extend([("mac", self.mac), ("decrypt", self.decrypt)]);
        }
        all
    }
}

/// Measures all layers of an image, one after the other.
pub(crate) fn of_image(image: &Image) -> Result<Stages> {
    let mut sum = Stages::default();
    for (stored, tar) in image.files() {
        let directory = path("stage");
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("stages")
            .arg(stored)
            .arg(tar)
            .arg(image.compression.name())
            .arg(&directory);
        let (_, output) = process::measure(command, None, image.fills())?;
        fs::remove_dir_all(&directory).context("removing the stage's files")?;
        let one: Stages = serde_json::from_str(&output).context("reading the stages")?;
        sum.hash_stored += one.hash_stored;
        sum.mac += one.mac;
        sum.decrypt += one.decrypt;
        sum.inflate += one.inflate;
        sum.hash_unpacked += one.hash_unpacked;
        sum.write += one.write;
    }
    Ok(sum)
}

/// Measures the stages of one layer, and prints them as JSON.
pub(crate) fn measure(options: &StageOptions) -> Result<()> {
    let stored = fs::read(&options.stored)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]);
    let mut stages = Stages {
        hash_stored: timed(|| drop_used(digest::digest(&digest::SHA256, &stored)))?,
        mac: timed(|| drop_used(hmac::sign(&key, &stored)))?,
        inflate: inflate(&stored, options.compression)?,
        ..Stages::default()
    };
    let context = DecryptionContext::Iv128(FixedLength::from([2; 16]));
    let mut cipher =
        StreamingDecryptingKey::ctr(UnboundCipherKey::new(&AES_256, &[1; 32])?, context)?;
    let mut plain = vec![0; CHUNK + 16];
    stages.decrypt = timed(|| {
        for piece in stored.chunks(CHUNK) {
            drop_used(cipher.update(piece, &mut plain).is_ok());
        }
    })?;
    // What was read above lies where the files should go.
    drop(stored);
    take_memory(fs::metadata(&options.tar)?.len())?;
    stages.write = write(&options.tar, &options.directory)?;
    let mut hash = digest::Context::new(&digest::SHA256);
    let (mut tar, mut buffer) = (File::open(&options.tar)?, vec![0; CHUNK]);
    loop {
        let length = tar.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        stages.hash_unpacked += timed(|| hash.update(bytes))?;
    }
    println!("{}", serde_json::to_string(&stages)?);
    Ok(())
}

/// Seconds of this thread's CPU.
fn timed(work: impl FnOnce()) -> Result<f64> {
    let now = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(seconds);
    let begin = now()?;
    work();
    Ok(now()? - begin)
}

/// Drops a value in a way that keeps the compiler from leaving out its computation.
fn drop_used<T>(value: T) {
    std::hint::black_box(value);
}

fn inflate(stored: &[u8], compression: Compression) -> Result<f64> {
    let mut decoder: Box<dyn Read + '_> = match compression {
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(stored)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(stored)?),
    };
    let mut buffer = vec![0; CHUNK];
    let mut result = Ok(());
    let time = timed(|| {
        result = loop {
            match decoder.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(_) => {}
                Err(error) => break Err(error),
            }
        }
    })?;
    result?;
    Ok(time)
}

/// A file or directory to make.
struct Entry {
    path: PathBuf,
    /// `None` for a directory.
    content: Option<Vec<u8>>,
}

/// Makes the archive's files: a call to create, to write, to date and to close each.
fn write(tar: &Path, directory: &Path) -> Result<f64> {
    fs::create_dir_all(directory)?;
    let mut archive = tar::Archive::new(File::open(tar)?);
    let (mut seconds, mut batch, mut bytes) = (0.0, Vec::new(), 0);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = directory.join(entry.path()?);
        let content = match entry.header().entry_type().is_dir() {
            true => None,
            false => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content)?;
                Some(content)
            }
        };
        bytes += content.as_ref().map_or(0, Vec::len);
        batch.push(Entry { path, content });
        if batch.len() == 1000 || bytes > 16 << 20 {
            seconds += make(&mut batch)?;
            bytes = 0;
        }
    }
    Ok(seconds + make(&mut batch)?)
}

fn make(batch: &mut Vec<Entry>) -> Result<f64> {
    let mut result = Ok(());
    let time = timed(|| result = batch.iter().try_for_each(make_one))?;
    batch.clear();
    result?;
    Ok(time)
}

fn make_one(entry: &Entry) -> io::Result<()> {
    let Some(content) = &entry.content else {
        return Ok(mkdirat(CWD, &entry.path, Mode::from_raw_mode(0o755))?);
    };
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = openat(CWD, &entry.path, flags, Mode::from_raw_mode(0o644))?;
    for piece in content.chunks(CHUNK) {
        let mut rest = piece;
        while !rest.is_empty() {
            let written = rustix::io::write(&file, rest)?;
            rest = rest.get(written..).unwrap_or_default();
        }
    }
    let time = Timespec {
        tv_sec: 1_700_000_000,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(futimens(&file, &times)?)
}
