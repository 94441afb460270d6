//! How much memory each parser of the host's bytes takes for the worst that it reads.
//!
//! An allocator counts what is in use. Each row makes the input that costs most for its bytes
//! as long as its bound allows; what is longer is refused before it is looked into. Messages
//! are bounded by the transport, and what is open of them all together by 16 MiB.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use agent_protocol::{
    documents::TOML_TOKENS_MAX,
    initdata::{DOCUMENT_BYTES_MAX, Initdata, PACKED_BYTES_MAX, packed},
    limits::MESSAGE_BYTES_MAX,
};
use agent_requests::{self as request, Parse};
use policy_engine::document::{self, Document};
use protobuf::Message;
use toml_parser::Source;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// Who measures; what others take at the time would count as well.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What a refusal of something too long may take.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// The system's allocator, counted.
struct Counted;

#[global_allocator]
static COUNTED: Counted = Counted;

#[expect(unsafe_code, reason = "an allocator has no safe form")]
// SAFETY: each call is passed on as it is; beside it only numbers are added up.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let used = IN_USE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(used, Relaxed);
        // SAFETY: the caller promises what `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the memory came from `System` with this layout.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// The most bytes in use at a time while this runs, beside what was in use before.
fn peak(run: impl FnOnce()) -> usize {
    let before = IN_USE.load(Relaxed);
    PEAK.store(before, Relaxed);
    run();
    PEAK.load(Relaxed) - before
}

/// A parser, the worst that it reads, and what it may take for it.
struct Row {
    name: &'static str,
    /// Whether the bytes were taken; either way it is measured.
    parse: fn(&[u8]) -> bool,
    worst: Vec<Vec<u8>>,
    /// What is too long for the parser itself.
    beyond: Option<Vec<u8>>,
    mib_max: usize,
}

impl Row {
    fn peak(&self, bytes: &[u8]) -> usize {
        peak(|| {
            (self.parse)(bytes);
        })
    }
}

fn initdata(bytes: &[u8]) -> bool {
    Initdata::parse(bytes).is_ok()
}

fn unpack(bytes: &[u8]) -> bool {
    packed::unpack(bytes).is_ok()
}

fn policy(bytes: &[u8]) -> bool {
    Document::parse(bytes).is_ok()
}

fn message<R: Parse<Message: Message>>(bytes: &[u8]) -> bool {
    R::Message::parse_from_bytes(bytes).is_ok_and(|message| R::parse(message).is_ok())
}

/// As often as it fits into so many bytes, between a beginning and an end.
fn filled(begin: &str, part: impl Fn(usize) -> String, end: &str, bytes: usize) -> Vec<u8> {
    let mut text = begin.to_owned();
    for number in 0.. {
        let part = part(number);
        if text.len() + part.len() + end.len() > bytes {
            break;
        }
        text.push_str(&part);
    }
    text.push_str(end);
    text.into_bytes()
}

/// Below [`TOML_TOKENS_MAX`] what tables and lists take, and at the length what text takes.
fn initdatas() -> Vec<Vec<u8>> {
    let parts: [fn(usize) -> String; 5] = [
        |n| format!("a{n}.b.c.d=1\n"),
        |n| format!("a{n}.b.c.d.e.f.g=1\n"),
        |n| format!("[a{n}.b.c.d.e.f.g]\n"),
        |_| "\n".into(),
        |_| "#\n".into(),
    ];
    let mut worst: Vec<_> = parts.map(most_tokens).into();
    for part in ["{a.b.c=1},", "[],", "1,"] {
        let tokens = Source::new(part).lex().count();
        let list = part.repeat((TOML_TOKENS_MAX - 8) / tokens);
        worst.push(format!("a=[{list}]").into_bytes());
    }
    worst.push(filled("a='", |_| "x".into(), "'", DOCUMENT_BYTES_MAX));
    worst
}

/// As often as the tokens allow.
fn most_tokens(part: fn(usize) -> String) -> Vec<u8> {
    let tokens = Source::new(&part(0)).lex().count();
    let text: String = (0..TOML_TOKENS_MAX / tokens - 1).map(part).collect();
    text.into_bytes()
}

fn policies() -> Vec<Vec<u8>> {
    let bytes = document::DOCUMENT_BYTES_MAX;
    vec![
        filled("{\"containers\":[", |_| "{},".into(), "{}]}", bytes),
        filled("{\"rules\":[", |n| format!("\"{n:x}\","), "\"\"]}", bytes),
        filled("{\"a\":[", |_| "[],".into(), "[]]}", bytes),
        filled("{\"a\":\"", |_| "\\u0041".into(), "\"}", bytes),
    ]
}

/// Messages that are the same few bytes again and again: a field of a nested message each.
fn messages(parts: &[&[u8]]) -> Vec<Vec<u8>> {
    let repeated = |part: &&[u8]| part.repeat(MESSAGE_BYTES_MAX / part.len());
    parts.iter().map(repeated).collect()
}

fn rows() -> Vec<Row> {
    let longer = |bytes: usize| Some(vec![b'#'; bytes + 1]);
    let empty_fields: [&[u8]; 5] = [
        b"\x0a\x00",
        b"\x12\x00",
        b"\x1a\x00",
        b"\x22\x00",
        b"\x2a\x00",
    ];
    let message_row = |name, parse, mib_max| Row {
        name,
        parse,
        worst: messages(&empty_fields),
        beyond: None,
        mib_max,
    };
    vec![
        Row {
            name: "initdata",
            parse: initdata,
            worst: initdatas(),
            beyond: longer(DOCUMENT_BYTES_MAX),
            mib_max: 40,
        },
        Row {
            name: "packed initdata",
            parse: unpack,
            worst: Vec::new(),
            beyond: longer(PACKED_BYTES_MAX),
            mib_max: 10,
        },
        Row {
            name: "policy document",
            parse: policy,
            worst: policies(),
            beyond: longer(document::DOCUMENT_BYTES_MAX),
            mib_max: 8,
        },
        message_row("CreateContainer", message::<request::CreateContainer>, 640),
        message_row("CreateSandbox", message::<request::CreateSandbox>, 640),
        message_row("ExecProcess", message::<request::ExecProcess>, 80),
        message_row("CopyFile", message::<request::CopyFile>, 80),
        message_row("UpdateRoutes", message::<request::UpdateRoutes>, 80),
        message_row("UpdateInterface", message::<request::UpdateInterface>, 80),
    ]
}

#[test]
fn each_parser_takes_no_more_memory_than_its_bound_for_the_worst_that_it_reads() {
    let _one = ONE_AT_A_TIME.lock();
    let mut over = Vec::new();
    for row in rows() {
        let peaks = row.worst.iter().map(|bytes| row.peak(bytes));
        let peaks: Vec<usize> = peaks.collect();
        eprintln!("{}: {peaks:?} bytes", row.name);
        let most = peaks.into_iter().max().unwrap_or(0);
        if most > row.mib_max << 20 {
            over.push(format!("{}: {} KiB", row.name, most >> 10));
        }
    }
    assert!(over.is_empty(), "{over:?}");
}

#[test]
fn what_is_too_long_is_refused_before_it_is_looked_into() {
    let _one = ONE_AT_A_TIME.lock();
    for row in rows() {
        let Some(beyond) = &row.beyond else { continue };
        assert!(!(row.parse)(beyond), "{}: taken", row.name);
        let refusal = row.peak(beyond);
        assert!(refusal < REFUSAL_BYTES_MAX, "{}: {refusal}", row.name);
    }
}

#[test]
fn initdata_of_more_tables_than_any_document_has_is_refused_before_one_is_made() {
    let _one = ONE_AT_A_TIME.lock();
    for part in ["a.b.c.d.e.f.g=1\n", "[a.b.c]\n", "[],"] {
        let begin = if part == "[]," { "a=[" } else { "" };
        let text = filled(begin, |_| part.into(), "", DOCUMENT_BYTES_MAX);
        let refusal = peak(|| assert!(!initdata(&text)));
        assert!(refusal < REFUSAL_BYTES_MAX, "{part:?}: {refusal}");
    }
}

#[test]
fn what_is_in_use_at_a_time_is_counted() {
    let _one = ONE_AT_A_TIME.lock();
    let two = peak(|| drop((vec![1_u8; 1 << 20], vec![1_u8; 1 << 20])));
    assert!((2 << 20..3 << 20).contains(&two), "{two}");
}
