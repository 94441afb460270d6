//! The images: bytes that compress about as well as programs do, from a fixed seed.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, Result};
use aws_lc_rs::digest::{Context as Hash, SHA256};
use clap::{Args, ValueEnum};
use serde_json::json;
use tests_harness::{built, run_ok};

use crate::place::{Place, REGISTRY, path};

const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const KEY_ID: &str = "kbs:///default/bench/1";
const FILES_A_DIRECTORY: usize = 100;
const LARGE_FILE: u64 = 16 << 20;
const SMALL_FILE: u64 = 4096;
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(1800);

/// How a layer is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    Gzip,
    Zstd,
}

impl Compression {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// An image to pull.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) name: &'static str,
    pub(crate) compression: Compression,
    pub(crate) layers: usize,
    /// Bytes of all layers together.
    pub(crate) bytes: u64,
    /// Small files instead of large ones, if any.
    pub(crate) files: usize,
    /// Name of the image that this one is, encrypted.
    pub(crate) encrypts: Option<&'static str>,
}

/// One layer to make.
#[derive(Debug, Args)]
pub(crate) struct MakeOptions {
    /// The archive.
    tar: PathBuf,
    /// The stored blob.
    stored: PathBuf,
    #[arg(value_enum)]
    compression: Compression,
    bytes: u64,
    files: usize,
    seed: u64,
}

/// All images; `divisor`s make them smaller.
pub(crate) fn all(quick: bool) -> Vec<Image> {
    let (bytes, files) = if quick {
        (64 << 20, 5_000)
    } else {
        (1 << 30, 50_000)
    };
    let image = |name, compression, layers, files| Image {
        name,
        compression,
        layers,
        bytes,
        files,
        encrypts: None,
    };
    let encrypted = |name, plain: &Image| Image {
        name,
        encrypts: Some(plain.name),
        ..plain.clone()
    };
    let one = image("one", Compression::Gzip, 1, 0);
    let zstd = image("one-zstd", Compression::Zstd, 1, 0);
    let small = image("small", Compression::Gzip, 1, files);
    let seven = image("seven", Compression::Gzip, 7, 0);
    let secret = [
        encrypted("one-encrypted", &one),
        encrypted("one-zstd-encrypted", &zstd),
        encrypted("small-encrypted", &small),
        encrypted("seven-encrypted", &seven),
    ];
    [one, zstd, small, seven]
        .into_iter()
        .chain(secret)
        .collect()
}

impl Image {
    pub(crate) fn reference(&self) -> String {
        format!("{REGISTRY}/{}:1", self.name)
    }

    /// Bytes that a pull of it may keep: the layers as they are stored, and unpacked.
    pub(crate) fn fills(&self) -> u64 {
        match self.files {
            0 => 2 * self.bytes,
            files => 2 * files as u64 * SMALL_FILE,
        }
    }

    /// Its layers as they are before encryption: stored, and unpacked.
    pub(crate) fn files(&self) -> Vec<(PathBuf, PathBuf)> {
        let name = self.encrypts.unwrap_or(self.name);
        let file = |layer| {
            (
                path(&format!("{name}-{layer}.stored")),
                path(&format!("{name}-{layer}.tar")),
            )
        };
        (0..self.layers).map(file).collect()
    }

    /// Entries of all its archives.
    pub(crate) fn entries(&self) -> usize {
        self.files + self.files.div_ceil(FILES_A_DIRECTORY)
    }

    /// Makes it and pushes it.
    pub(crate) fn provide(&self, place: &Place) -> Result<()> {
        match self.encrypts {
            Some(plain) => self.encrypt(plain),
            None => self.push(place),
        }
        .with_context(|| format!("making image {}", self.name))
    }

    fn encrypt(&self, plain: &str) -> Result<()> {
        let mut command = Command::new(built("kata-cc")?);
        command
            .args(["image", "encrypt", "--insecure", REGISTRY])
            .args(["--key", KEY_ID, "--key-file"])
            .arg(path("keys.json"))
            .arg(format!("docker://{REGISTRY}/{plain}:1"))
            .arg(format!("docker://{}", self.reference()));
        run_ok(command, DEADLINE).map(drop)
    }

    fn push(&self, place: &Place) -> Result<()> {
        let layout = path("layout");
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        let bytes = self.bytes / self.layers as u64;
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        for (index, (stored, tar)) in self.files().into_iter().enumerate() {
            // In a process of its own, whose memory is not ours afterwards.
            let mut make = Command::new(std::env::current_exe()?);
            make.arg("make").arg(&tar).arg(&stored).args([
                self.compression.name().to_owned(),
                bytes.to_string(),
                self.files.to_string(),
                (index + 1).to_string(),
            ]);
            run_ok(make, DEADLINE)?;
            let digest = sha256(&stored)?;
            fs::hard_link(&stored, blobs.join(&digest))?;
            layers.push(
                json!({"mediaType": format!("{OCI_LAYER}+{}", self.compression.name()),
                "digest": format!("sha256:{digest}"), "size": fs::metadata(&stored)?.len()}),
            );
            diff_ids.push(format!("sha256:{}", sha256(&tar)?));
        }
        let put = |media_type: &str, json: serde_json::Value| -> Result<serde_json::Value> {
            let bytes = serde_json::to_vec(&json)?;
            let digest = hex(aws_lc_rs::digest::digest(&SHA256, &bytes).as_ref());
            fs::write(blobs.join(&digest), &bytes)?;
            Ok(
                json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()}),
            )
        };
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = put(
            OCI_CONFIG,
            json!({"os": "linux", "architecture": architecture, "config": {},
                "rootfs": {"type": "layers", "diff_ids": diff_ids}}),
        )?;
        let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": config, "layers": layers});
        let mut manifest = put(OCI_MANIFEST, manifest)?;
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "x"});
        fs::write(
            layout.join("index.json"),
            json!({"schemaVersion": 2, "manifests": [manifest]}).to_string(),
        )?;
        fs::write(
            layout.join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )?;
        let skopeo = place
            .skopeo
            .as_ref()
            .context("images are pushed by skopeo")?;
        let [program, words @ ..] = skopeo.words();
        let mut copy = Command::new(program);
        copy.args(words)
            .args([
                "--insecure-policy",
                "copy",
                "--quiet",
                "--dest-tls-verify=false",
            ])
            .arg(format!("oci:{}:x", layout.display()))
            .arg(format!("docker://{}", self.reference()));
        run_ok(copy, DEADLINE)?;
        fs::remove_dir_all(&layout).context("removing the layout")
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(file: &PathBuf) -> Result<String> {
    let (mut hash, mut file) = (Hash::new(&SHA256), File::open(file)?);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let length = file.read(&mut buffer)?;
        match buffer.get(..length) {
            Some([]) | None => return Ok(hex(hash.finish().as_ref())),
            Some(bytes) => hash.update(bytes),
        }
    }
}

/// Makes a layer's archive and its stored form.
pub(crate) fn make(options: &MakeOptions) -> Result<()> {
    let mut archive = tar::Builder::new(BufWriter::new(File::create(&options.tar)?));
    let mut content = Content::new(options.seed);
    match options.files {
        0 => large(&mut archive, &mut content, options)?,
        files => small(&mut archive, &mut content, files)?,
    }
    archive.into_inner()?.flush()?;
    let (mut tar, stored) = (
        File::open(&options.tar)?,
        BufWriter::new(File::create(&options.stored)?),
    );
    match options.compression {
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(stored, flate2::Compression::new(6));
            io::copy(&mut tar, &mut encoder)?;
            encoder.finish()?.flush()?;
        }
        Compression::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(stored, 3)?;
            io::copy(&mut tar, &mut encoder)?;
            encoder.finish()?.flush()?;
        }
    }
    Ok(())
}

type Archive = tar::Builder<BufWriter<File>>;

fn large(archive: &mut Archive, content: &mut Content, options: &MakeOptions) -> Result<()> {
    let mut left = options.bytes;
    let mut number = 0;
    while left > 0 {
        let size = left.min(LARGE_FILE);
        let name = format!("layer-{}-file-{number}", options.seed);
        archive.append_data(&mut header(size, 0o644), name, content.take(size))?;
        left -= size;
        number += 1;
    }
    Ok(())
}

/// Files of 0 to 4 KiB, many to a directory.
fn small(archive: &mut Archive, content: &mut Content, files: usize) -> Result<()> {
    for number in 0..files {
        let directory = format!("d{}", number / FILES_A_DIRECTORY);
        if number % FILES_A_DIRECTORY == 0 {
            let mut header = header(0, 0o755);
            header.set_entry_type(tar::EntryType::Directory);
            archive.append_data(&mut header, &directory, io::empty())?;
        }
        let size = content.next() % SMALL_FILE;
        archive.append_data(
            &mut header(size, 0o644),
            format!("{directory}/f{number}"),
            content.take(size),
        )?;
    }
    Ok(())
}

fn header(size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(1_700_000_000);
    header
}

/// An endless stream: words that repeat, and noise between them.
struct Content {
    state: u64,
    words: Vec<[u8; 24]>,
}

impl Content {
    fn new(seed: u64) -> Self {
        let mut content = Self {
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            words: Vec::new(),
        };
        for _ in 0..2048 {
            let mut word = [0; 24];
            for part in word.chunks_exact_mut(8) {
                part.copy_from_slice(&content.next().to_le_bytes());
            }
            content.words.push(word);
        }
        content
    }

    /// Marsaglia's xorshift64.
    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    fn take(&mut self, size: u64) -> io::Take<&mut Self> {
        Read::take(self, size)
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for chunk in buffer.chunks_mut(24) {
            let number = self.next();
            let mut word = self.words[usize::try_from(number % 2048).unwrap_or(0)];
            if number >> 60 < 5 {
                word[..8].copy_from_slice(&number.to_le_bytes());
            }
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(buffer.len())
    }
}
