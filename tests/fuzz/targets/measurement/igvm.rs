//! Any bytes give a file that can be measured, or an error.
//!
//! Random bytes fail at the checksum, so the same bytes are also taken as the list of headers
//! of a file, and as edits of a file that has every structure; both have a right checksum.
#![no_main]

use guest_image_measurement::{
    Sha384Digest,
    igvm::{Igvm, Loader},
};
use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../../../guest-image/measurement/tests/igvm/raw.rs"]
mod raw;

/// Where the headers begin.
const HEADERS_AT: usize = 24;

fuzz_target!(|bytes: &[u8]| {
    measure(bytes);
    measure(&raw::framed(1, HEADERS_AT, bytes));
    measure(&edited(bytes));
});

fn measure(file: &[u8]) {
    let Ok(igvm) = Igvm::parse(file) else {
        return;
    };
    assert!(igvm.processors() > 0);
    for loader in Loader::ALL {
        let _ = igvm.digest(loader);
    }
    let stated = igvm.id_block().map(|block| block.launch_digest);
    let _ = igvm.authenticate(stated.unwrap_or(Sha384Digest::new([0; 48])));
}

/// Three bytes are an edit: a place among the headers, and what to write there.
fn edited(edits: &[u8]) -> Vec<u8> {
    let mut identity = vec![0; 696];
    for at in [0, 88, 96] {
        identity[at] = 1;
    }
    let mut file = raw::file(&raw::with(&[
        raw::area(0x2000, 0, 0),
        (raw::VP_COUNT, vec![0; 8]),
        raw::insert(0x10_0000, 0),
        raw::page(0x1000, raw::DATA, 0, 0),
        raw::page(0x2000, 0, 0, 0),
        raw::page(0x3000, raw::DATA, 2, 0),
        raw::page(0x4000, raw::DATA, 4, 0),
        raw::page(0x5000, 0, 0, 1),
        raw::page(0x6000, raw::DATA, 0, 2),
        raw::context(0xffff_ffff_f000, raw::DATA, 1),
        (raw::ID_BLOCK, identity),
    ]));
    let headers = HEADERS_AT..file.len() - raw::DATA_BYTES;
    for edit in edits.chunks_exact(3) {
        let place = usize::from(u16::from_le_bytes([edit[0], edit[1]]));
        file[headers.start + place % headers.len()] = edit[2];
    }
    raw::seal(&mut file);
    file
}
