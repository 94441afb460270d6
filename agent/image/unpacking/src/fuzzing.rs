//! Doors for the fuzz targets, which see only what is public. Not part of any product.

use std::io::BufReader;

use crate::tar::Reader;

/// Reads a whole archive through a small buffer. Checksums are made right, or
/// chance would hardly ever get past them.
pub fn tar(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    for block in bytes
        .chunks_exact_mut(512)
        .filter(|block| block[0] & 1 == 1)
    {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    let mut reader = Reader::new(BufReader::with_capacity(64, bytes.as_slice()));
    while let Ok(Some(_)) = reader.next_entry() {
        while let Ok(content) = reader.content() {
            let length = content.len();
            if length == 0 {
                break;
            }
            reader.consume(length);
        }
    }
}
