//! What a pull did, and how far it is: for whoever waits for it, or wonders why it failed.
//!
//! Counting is all that happens here. Nothing that is decided depends on these
//! numbers, so they are updated without any order between threads.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use agent_image_registry::Digest;

/// How far one pull is; read while it runs, and after it failed.
#[derive(Debug, Default)]
pub struct Progress {
    layers: AtomicUsize,
    finished: AtomicUsize,
    expected: AtomicU64,
    received: AtomicU64,
}

impl Progress {
    /// Layers of the image; 0 until its manifest is there.
    pub fn layers(&self) -> usize {
        self.layers.load(Ordering::Relaxed)
    }

    /// Layers that are in the store.
    pub fn finished(&self) -> usize {
        self.finished.load(Ordering::Relaxed)
    }

    /// Bytes of all layers as the registry stores them.
    pub fn expected_bytes(&self) -> u64 {
        self.expected.load(Ordering::Relaxed)
    }

    /// Bytes of layers that were received, or are in the store from an earlier pull.
    pub fn received_bytes(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Sets how many layers there are, and their sizes.
    pub fn begin(&self, sizes: impl Iterator<Item = u64>) {
        let (mut layers, mut bytes) = (0, 0u64);
        for size in sizes {
            layers += 1;
            bytes = bytes.saturating_add(size);
        }
        self.expected.store(bytes, Ordering::Relaxed);
        self.layers.store(layers, Ordering::Relaxed);
    }

    /// Counts bytes of layers that were received.
    pub fn receive(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a layer that is in the store.
    pub fn finish(&self) {
        self.finished.fetch_add(1, Ordering::Relaxed);
    }
}

/// What became of one layer.
#[derive(Debug, Clone)]
pub struct LayerReport {
    /// Its blob's digest.
    pub digest: Digest,
    /// As the manifest states it.
    pub media_type: String,
    /// Whether it was decrypted.
    pub encrypted: bool,
    /// Bytes of the blob.
    pub stored_bytes: u64,
    /// Bytes of the archive; `None` if an earlier pull left the layer in the store.
    pub unpacked_bytes: Option<u64>,
    /// From its first request until it was verified and unpacked; without the wait for its turn.
    pub duration: Duration,
}

/// Counts one layer's bytes, and passes what arrives on to the whole.
pub struct Meter<'a> {
    progress: &'a Progress,
    unpacked: AtomicU64,
}

impl<'a> Meter<'a> {
    /// For one layer of a pull.
    pub fn new(progress: &'a Progress) -> Self {
        Self {
            progress,
            unpacked: AtomicU64::new(0),
        }
    }

    pub(crate) fn receive(&self, bytes: usize) {
        self.progress.receive(bytes as u64);
    }

    pub(crate) fn unpack(&self, bytes: usize) {
        self.unpacked.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes of the archive so far.
    #[must_use]
    pub fn unpacked(&self) -> u64 {
        self.unpacked.load(Ordering::Relaxed)
    }
}
