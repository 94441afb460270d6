use super::*;

/// A header of a given type, with a right checksum.
fn header(name: &str, kind: u8, size: u64) -> Vec<u8> {
    let mut block = vec![0u8; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(b"0000644");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[156] = kind;
    block[257..263].copy_from_slice(b"ustar\0");
    seal(&mut block);
    block
}

fn seal(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(512), 0);
    padded
}

fn end() -> Vec<u8> {
    vec![0; 1024]
}

fn read(archive: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    // A small buffer, so that blocks straddle its refills.
    let mut reader = Reader::new(std::io::BufReader::with_capacity(100, archive));
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        loop {
            let slice = reader.content()?;
            if slice.is_empty() {
                break;
            }
            content.extend_from_slice(slice);
            let amount = slice.len();
            reader.consume(amount);
        }
        entries.push((entry, content));
    }
    Ok(entries)
}

#[test]
fn files_and_directories_come_with_their_content() {
    let archive = [
        header("d/", b'5', 0),
        header("d/f", b'0', 5),
        padded(b"hello"),
        header("old/", 0, 0),
        end(),
    ];
    let entries = read(&archive.concat()).unwrap();
    let kinds: Vec<_> = entries
        .iter()
        .map(|(entry, content)| (entry.kind.clone(), content.as_slice()))
        .collect();
    assert_eq!(
        kinds,
        [
            (Kind::Directory, &b""[..]),
            (Kind::File { size: 5 }, b"hello"),
            (Kind::Directory, b""),
        ]
    );
}

#[test]
fn long_names_of_gnu_and_pax_replace_the_header_s() {
    let long = "n".repeat(300);
    let pax = format!("{} path={long}\n", 6 + 3 + 300 + 1);
    assert_eq!(pax.len(), 310);
    let archive = [
        header("././@LongLink", b'L', 301),
        padded(format!("{long}\0").as_bytes()),
        header("short", b'0', 0),
        header("x", b'x', 310),
        padded(pax.as_bytes()),
        header("short", b'5', 0),
    ];
    let entries = read(&archive.concat()).unwrap();
    assert_eq!(entries.len(), 2);
    assert!(
        entries
            .iter()
            .all(|(entry, _)| entry.name == long.as_bytes())
    );
}

#[test]
fn an_archive_may_end_without_zero_blocks_but_not_inside_something() {
    let whole = [header("f", b'0', 5), padded(b"hello")].concat();
    assert_eq!(read(&whole).unwrap().len(), 1);
    for cut in [517, 600, 1023] {
        assert_eq!(
            read(&whole[..cut]).unwrap().len(),
            1,
            "only padding is missing"
        );
    }
    for cut in [1, 511, 513, 516] {
        assert!(
            matches!(read(&whole[..cut]), Err(TarError::Truncated)),
            "{cut}"
        );
    }
    let dangling = [header("x", b'L', 3), padded(b"abc"), end()].concat();
    assert!(matches!(read(&dangling), Err(TarError::Dangling)));
}

#[test]
fn names_of_four_gibibytes_are_refused_before_they_are_read() {
    let huge = u64::from(u32::MAX) + 1;
    for kind in [b'L', b'K', b'x', b'g'] {
        let archive = header("x", kind, huge);
        assert!(
            matches!(read(&archive), Err(TarError::ExtensionSize { .. })),
            "{kind}"
        );
    }
}

#[test]
fn damaged_and_unknown_headers_are_refused() {
    let mut damaged = header("f", b'0', 0);
    damaged[0] = b'g';
    assert!(matches!(read(&damaged), Err(TarError::Checksum)));
    assert!(matches!(read(&[1; 512]), Err(TarError::Checksum)));
    assert!(matches!(read(&header("f", b'S', 0)), Err(TarError::Sparse)));
    for kind in [b'V', b'M', b'D', b'Z', 200] {
        assert!(matches!(read(&header("f", kind, 0)), Err(TarError::Type(found)) if found == kind));
    }
}

#[test]
fn devices_outside_linux_numbers_and_empty_links_are_refused() {
    let mut device = header("d", b'3', 0);
    device[329..336].copy_from_slice(b"0010000");
    seal(&mut device);
    assert!(matches!(
        read(&device),
        Err(TarError::Range("major device number"))
    ));
    for kind in [b'1', b'2'] {
        assert!(matches!(
            read(&header("l", kind, 0)),
            Err(TarError::Name("link target"))
        ));
    }
    assert!(matches!(
        read(&header("", b'0', 0)),
        Err(TarError::Name("name"))
    ));
}
