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

/// PAX records before an entry.
fn records(records: &[(&str, &str)]) -> Vec<u8> {
    let mut body = String::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (rest..).find(|length| length.to_string().len() + rest == *length);
        body.push_str(&format!("{} {key}={value}\n", length.unwrap()));
    }
    let body = body.into_bytes();
    [header("pax", b'x', body.len() as u64), padded(&body)].concat()
}

/// A header of type `S` with parts of (offset, length).
fn old_sparse(size: u64, stored: u64, parts: &[(u64, u64)], more: bool) -> Vec<u8> {
    let mut block = header("f", b'S', stored);
    put_parts(&mut block[386..482], parts);
    block[482] = u8::from(more);
    block[483..494].copy_from_slice(format!("{size:011o}").as_bytes());
    seal(&mut block);
    block
}

fn put_parts(into: &mut [u8], parts: &[(u64, u64)]) {
    for (place, (offset, length)) in into.chunks_exact_mut(24).zip(parts) {
        place[..11].copy_from_slice(format!("{offset:011o}").as_bytes());
        place[12..23].copy_from_slice(format!("{length:011o}").as_bytes());
    }
}

/// The name of the only entry, a sparse file, its map and what the archive holds of it.
fn only_sparse(archive: &[u8]) -> (Vec<u8>, Map, Vec<u8>) {
    let (entry, content) = read(archive).unwrap().pop().unwrap();
    let Kind::Sparse { map } = entry.kind else {
        panic!("the entry is no sparse file")
    };
    (entry.name, map, content)
}

#[test]
fn sparse_files_are_read_in_each_notation() {
    let parts = [(512, 3), (4096, 2), (9000, 0)];
    let data = padded(b"abcde");
    let named = |more: &[(&str, &str)]| {
        let known = [("GNU.sparse.name", "f"), ("GNU.sparse.size", "9000")];
        records(&[&known[..], more].concat())
    };
    let text = padded(b"3\n512\n3\n4096\n2\n9000\n0\n");
    let mut more = vec![0; 512];
    put_parts(&mut more[..504], &parts[1..]);
    let archives = [
        [old_sparse(9000, 5, &parts, false), data.clone(), end()].concat(),
        [
            old_sparse(9000, 5, &parts[..1], true),
            more,
            data.clone(),
            end(),
        ]
        .concat(),
        [
            records(&[
                ("GNU.sparse.size", "9000"),
                ("GNU.sparse.numblocks", "3"),
                ("GNU.sparse.offset", "512"),
                ("GNU.sparse.numbytes", "3"),
                ("GNU.sparse.offset", "4096"),
                ("GNU.sparse.numbytes", "2"),
                ("GNU.sparse.offset", "9000"),
                ("GNU.sparse.numbytes", "0"),
            ]),
            header("f", b'0', 5),
            data.clone(),
            end(),
        ]
        .concat(),
        [
            named(&[("GNU.sparse.map", "512,3,4096,2,9000,0")]),
            header("GNUSparseFile.1/f", b'0', 5),
            data.clone(),
            end(),
        ]
        .concat(),
        [
            named(&[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0")]),
            header("GNUSparseFile.1/f", b'0', 517),
            text,
            data.clone(),
            end(),
        ]
        .concat(),
    ];
    for (number, archive) in archives.iter().enumerate() {
        let (name, map, content) = only_sparse(archive);
        let found = map.parts().iter().map(|part| (part.offset, part.length));
        let found: Vec<(u64, u64)> = found.collect();
        assert_eq!((name, map.size()), (b"f".to_vec(), 9000), "{number}");
        assert_eq!(
            (found.as_slice(), content),
            (&parts[..], b"abcde".to_vec()),
            "{number}"
        );
    }
}

#[test]
fn sparse_maps_that_cannot_be_right_are_refused() {
    for (size, stored, parts) in [
        (9000, 5, &[(512, 3), (513, 2)][..]),
        (9000, 5, &[(4096, 3), (512, 2)]),
        (512, 5, &[(512, 5)]),
        (9000, 5, &[(512, 4)]),
        (9000, 5, &[(512, 6)]),
        (9000, 5, &[]),
    ] {
        let archive = [
            old_sparse(size, stored, parts, false),
            padded(b"abcde"),
            end(),
        ];
        assert!(
            matches!(read(&archive.concat()), Err(TarError::Sparse(_))),
            "{parts:?}"
        );
    }
    let most = u64::MAX.to_string();
    for (key, value) in [
        ("map", "0,5,1"),
        ("map", "0,-5"),
        ("map", &format!("{most},5")),
        ("offset", "0"),
        ("numbytes", "5"),
        ("numblocks", "2"),
        ("size", "-1"),
        ("major", "2"),
        ("minor", "7"),
        ("holes", "1"),
    ] {
        let archive = [
            records(&[
                ("GNU.sparse.size", "100"),
                ("GNU.sparse.map", "0,5"),
                (&format!("GNU.sparse.{key}"), value),
            ]),
            header("f", b'0', 5),
            padded(b"abcde"),
            end(),
        ];
        assert!(read(&archive.concat()).is_err(), "{key}={value}");
    }
    for map in ["", "x\n", "2\n0\n5\n", "99999999\n", "1\n0\n-5\n", "-1\n"] {
        let archive = [
            records(&[("GNU.sparse.major", "1"), ("GNU.sparse.realsize", "100")]),
            header("f", b'0', 512 + 5),
            padded(&[map.as_bytes(), b" "].concat()),
            padded(b"abcde"),
            end(),
        ];
        assert!(read(&archive.concat()).is_err(), "{map:?}");
    }
    let directory = [
        records(&[("GNU.sparse.map", "0,5")]),
        header("d", b'5', 0),
        end(),
    ];
    assert!(matches!(
        read(&directory.concat()),
        Err(TarError::Sparse(_))
    ));
}
