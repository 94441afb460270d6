//! Every field that the host can set is classified, and every way in has its row.
//!
//! The tables are `fields.txt` and `checklist.txt`; `docs/policy-coverage.md` is made of them,
//! with `POLICY_WRITE_PAGE=1 cargo test --release -p policy-engine --test coverage`.

#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use agent_protocol::rpc::agent;
use policy_engine::{Code, Engine, Request, rules_digest_hex};
use protobuf::reflect::{FieldDescriptor, MessageDescriptor, RuntimeFieldType, RuntimeType};

const FIELDS: &str = include_str!("fields.txt");
const CHECKLIST: &str = include_str!("checklist.txt");
/// How many ways in there are.
const CHECKLIST_ROWS: usize = 78;
const KINDS: [(&str, &str); 4] = [
    ("judged", "judged by the policy"),
    ("refused", "refused by every guest"),
    ("guest", "bounded or decided by the guest"),
    ("ignored", "ignored"),
];

fn rows(table: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = table
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| {
        let row: Vec<&str> = line.split('|').map(str::trim).collect();
        assert_eq!(row.len(), 4, "{line}");
        row
    })
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The message that a field holds, if it holds one.
fn inner(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    let kind = match field.runtime_field_type() {
        RuntimeFieldType::Singular(kind) | RuntimeFieldType::Repeated(kind) => kind,
        RuntimeFieldType::Map(_, value) => value,
    };
    match kind {
        RuntimeType::Message(message) => Some(message),
        _ => None,
    }
}

/// All that can be in a message, as `MESSAGE.FIELD`.
fn add(message: &MessageDescriptor, seen: &mut BTreeSet<String>, all: &mut BTreeSet<String>) {
    if !seen.insert(message.full_name().to_owned()) {
        return;
    }
    for field in message.fields() {
        all.insert(format!("{}.{}", message.name(), field.name()));
        if let Some(inner) = inner(&field) {
            add(&inner, seen, all);
        }
    }
}

/// All that the host can set in a request of the service.
fn fields_of_the_service() -> BTreeSet<String> {
    let file = agent::file_descriptor();
    let methods = file.proto().service.iter().flat_map(|one| &one.method);
    let (mut seen, mut all) = (BTreeSet::new(), BTreeSet::new());
    for method in methods {
        let message = file.message_by_full_name(method.input_type()).unwrap();
        add(&message, &mut seen, &mut all);
    }
    all
}

#[test]
fn every_field_is_classified_and_every_row_has_its_field() {
    let classified: Vec<String> = rows(FIELDS).map(|row| row[0].to_owned()).collect();
    let unique: BTreeSet<String> = classified.iter().cloned().collect();
    assert_eq!(unique.len(), classified.len(), "a field has two rows");
    let fields = fields_of_the_service();
    assert!(fields.len() > 250, "{}", fields.len());
    let new: Vec<_> = fields.difference(&unique).collect();
    let gone: Vec<_> = unique.difference(&fields).collect();
    assert!(new.is_empty(), "not classified: {new:?}");
    assert!(gone.is_empty(), "not in the protocol: {gone:?}");
}

#[test]
fn a_classification_is_one_of_four_and_names_a_code_or_a_reason() {
    let codes: BTreeSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    for row in rows(FIELDS) {
        let [field, kind, code, words] = row[..] else {
            unreachable!()
        };
        assert!(
            KINDS.iter().any(|(name, _)| *name == kind),
            "{field}: {kind}"
        );
        assert!(code.is_empty() || codes.contains(code), "{field}: {code}");
        let told = if kind == "judged" {
            !code.is_empty() || words.starts_with("see ")
        } else {
            !words.is_empty()
        };
        assert!(told, "{field} has neither a code nor a reason");
    }
}

/// Every name of a function in the sources.
fn functions(directory: &Path, all: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                functions(&path, all);
            }
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(&path).unwrap();
            let words = text.split("fn ").skip(1);
            all.extend(words.map(|rest| {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                rest[..end.unwrap_or(rest.len())].to_owned()
            }));
        }
    }
}

#[test]
fn every_way_in_has_its_row_and_names_tests_and_codes_that_exist() {
    let mut known = BTreeSet::new();
    for party in ["agent", "guest-image", "policy", "tests"] {
        functions(&root().join(party), &mut known);
    }
    let codes: BTreeSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    let mut numbers = Vec::new();
    for row in rows(CHECKLIST) {
        numbers.push(row[0].parse::<usize>().unwrap());
        for test in row[3].split_whitespace() {
            assert!(known.contains(test), "row {}: no test {test}", row[0]);
        }
        for code in row[2].split('`').skip(1).step_by(2) {
            let is_code = code.contains(|c: char| c.is_ascii_uppercase()) && code != "HOSTNAME";
            assert!(
                !is_code || codes.contains(code),
                "row {}: no code {code}",
                row[0]
            );
        }
    }
    assert_eq!(numbers, (1..=CHECKLIST_ROWS).collect::<Vec<_>>());
}

/// Messages for which the fixed rules have no rule.
macro_rules! denied {
    ($($name:ident)*) => {
        fn denied_by(engine: &Engine) -> Vec<(&'static str, Code)> {
            let mut all = Vec::new();
            $({
                struct $name;
                impl Request for $name {
                    const RULE: &'static str = stringify!($name);
                }
                let denied = engine.judge($name).err().unwrap();
                all.push((stringify!($name), denied.finding.code));
            })*
            all
        }
    };
}

denied! {
    AddSwapPathRequest AddSwapRequest GetIPTablesRequest GetMetricsRequest ListInterfacesRequest
    ListRoutesRequest MemAgentCompactConfig MemAgentMemcgConfig MemHotplugByProbeRequest
    PauseContainerRequest RemoveStaleVirtiofsShareMountsRequest ReseedRandomDevRequest
    ResizeVolumeRequest ResumeContainerRequest SetGuestDateTimeRequest SetIPTablesRequest
    UpdateEphemeralMountsRequest VolumeStatsRequest
}

#[test]
fn what_no_pod_needs_is_denied() {
    let text = format!(r#"{{"containers":[],"rules":["{}"]}}"#, rules_digest_hex());
    let engine = Engine::of_document(text.as_bytes()).unwrap();
    let denied = denied_by(&engine);
    for (message, code) in &denied {
        assert_eq!(*code, Code::NotAllowed, "{message}");
    }
    // Each field that the table calls so is of one of these.
    for row in rows(FIELDS).filter(|row| row[2] == Code::NotAllowed.name()) {
        let message = row[0].split('.').next().unwrap();
        assert!(denied.iter().any(|(name, _)| *name == message), "{message}");
    }
}

fn page() -> String {
    let mut page = String::from(
        "# What of a request is checked\n\n\
         This page is made by a test (`policy/engine/tests/coverage`), which fails when the protocol has a\n\
         field that has no row here, and when a row is about a field or a test that is gone.\n\n\
         ## Every field\n\n\
         *Judged* fields are compared with the [policy document](policy.md), and what is wrong has the\n\
         [code](denials.md) that is named. *Refused* is what no guest does, whatever its policy says. What the\n\
         *guest* bounds or decides itself harms nobody in any value, and what is *ignored* is not read or\n\
         decides nothing. Under a Kata-style policy ([kata-policies.md](kata-policies.md)) its rules judge in\n\
         the document's place, and all else is the same.\n",
    );
    let mut messages: BTreeMap<&str, Vec<Vec<&str>>> = BTreeMap::new();
    for row in rows(FIELDS) {
        let message = row[0].split('.').next().unwrap();
        messages.entry(message).or_default().push(row);
    }
    for (message, rows) in messages {
        page.push_str(&format!(
            "\n### {message}\n\n| field | | how |\n|---|---|---|\n"
        ));
        for row in rows {
            let field = row[0].split('.').nth(1).unwrap();
            let kind = KINDS.iter().find(|(name, _)| *name == row[1]).unwrap().1;
            let how = [row[2], row[3]].map(str::to_owned);
            let how = match &how {
                [code, words] if code.is_empty() => words.clone(),
                [code, words] if words.is_empty() => format!("`{code}`"),
                [code, words] => format!("`{code}`: {words}"),
            };
            page.push_str(&format!("| `{field}` | {kind} | {how} |\n"));
        }
    }
    page.push_str(
        "\n## Every way in\n\n\
         What a host can try, one row each, with how it is closed and tests that show it. Where no test is\n\
         named, there is none of that name in the sources.\n\n\
         | | what the host chooses | how it is closed | tests |\n|---|---|---|---|\n",
    );
    for row in rows(CHECKLIST) {
        let tests: Vec<String> = row[3]
            .split_whitespace()
            .map(|test| format!("`{test}`"))
            .collect();
        page.push_str(&format!(
            "| {} | {} | {} | {} |\n",
            row[0],
            row[1],
            row[2],
            tests.join(", ")
        ));
    }
    page
}

#[test]
fn the_page_is_what_the_tables_say() {
    let path = root().join("docs/policy-coverage.md");
    if std::env::var_os("POLICY_WRITE_PAGE").is_some() {
        fs::write(&path, page()).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page(),
        "docs/policy-coverage.md is old: POLICY_WRITE_PAGE=1 writes it"
    );
}
