//! Whether evidence is affirming: the verdict of `policy-appraisal` first, then what binds it to
//! this session and to the owner's releases, then the owner's Rego.
//!
//! REPORT_DATA must bind nonce, guest's key and log as the protocol says. Evidence that a
//! container had made, or that answers anybody else, is bound in another way and never passes.

use agent_evidence::{
    HostData, ReportData,
    log::{Entry, MeasurementLog},
};
use agent_keys_protocol::{Attestation, report_data};
use agent_protocol::initdata::{DOCUMENT_ENTRY, Initdata, POLICY_ENTRY};
use policy_appraisal::{
    Timestamp, replay,
    snp::{AuthenticReport, Expected, JsonEvidence},
};
use serde_json::{Map, Value, json};

use crate::{
    configuration::LogRule,
    refusal::Refusal,
    rules::Rules,
    trust::{Tier, TrustVector},
};

/// The TEE whose evidence is judged.
pub(crate) const TEE: &str = "snp";
/// Longest entry of initdata that is handed to Rego.
const ENTRY_BYTES_MAX: usize = 4096;

/// What an affirming guest proved.
pub(crate) struct Affirmed {
    pub(crate) claims: Value,
    pub(crate) init_data_claims: Value,
    pub(crate) log: Value,
    pub(crate) trust: TrustVector,
}

/// Judges what came for a session with this nonce.
///
/// # Errors
///
/// Every check that refused; never an empty list.
pub(crate) fn appraise(
    rules: &Rules,
    nonce: &str,
    attestation: &Attestation,
    at: Timestamp,
) -> Result<Affirmed, Vec<Refusal>> {
    let given = &attestation.runtime_data.nonce;
    if given != nonce {
        return Err(one(
            "nonce",
            nonce,
            given,
            "nothing: the guest answers another session",
        ));
    }
    let authentic = authenticate(rules, attestation, at)?;
    let (host_data, measurement) = (authentic.host_data(), authentic.measurement());
    let claims = authentic.claims();
    let additional = &attestation.tee_evidence.additional_evidence;
    let expected = Expected {
        report_data: ReportData(report_data(
            nonce,
            &attestation.runtime_data.tee_pubkey,
            additional,
        )),
        // Which ones are accepted is judged below.
        host_data,
    };
    let mut refusals = Refusal::of_verdict(&authentic.appraise(&rules.references, &expected));
    refusals.extend(judge_host_data(rules, host_data));
    refusals.extend(judge_image(rules, &measurement));
    let document = judge_init_data(rules, attestation, host_data);
    let log = judge_log(rules, attestation);
    let (document, log) = match (document, log) {
        (Ok(document), Ok(log)) if refusals.is_empty() => (document, log),
        (document, log) => {
            refusals.extend(document.err());
            refusals.extend(log.err());
            return Err(refusals);
        }
    };
    let init_data_claims = init_data_claims(document.as_ref());
    let log = log.map_or(Value::Null, |log| log_claims(rules, &log));
    let input = json!({
        TEE: claims,
        "report_data": claims.get("report_data"),
        "init_data": claims.get("init_data"),
        "runtime_data_claims": attestation.runtime_data,
        "init_data_claims": init_data_claims,
        "measurement_log": log,
    });
    let trust = judge_by_rego(rules, &input)?;
    Ok(Affirmed {
        claims,
        init_data_claims,
        log,
        trust,
    })
}

fn one(check: &str, expected: &str, received: &str, advice: &str) -> Vec<Refusal> {
    vec![Refusal::new(check, expected, received, advice)]
}

fn authenticate(
    rules: &Rules,
    attestation: &Attestation,
    at: Timestamp,
) -> Result<AuthenticReport, Vec<Refusal>> {
    let text = attestation.tee_evidence.primary_evidence.to_string();
    let malformed = |error: &dyn std::error::Error| {
        let advice = "nothing: the guest sends another form of evidence";
        one(
            "evidence",
            "snp evidence in CoCo's form",
            &error.to_string(),
            advice,
        )
    };
    let mut evidence = JsonEvidence::parse(text.as_bytes()).map_err(|error| malformed(&error))?;
    if let Some(store) = &rules.certificates {
        let found = store.find(&evidence.report.locator()).map_err(|error| {
            let advice = "repair the directory that `certificates` of broker.toml names";
            one(
                "certificates",
                "certificates that can be read",
                &error.to_string(),
                advice,
            )
        })?;
        let endorsements = &mut evidence.endorsements;
        for certificate in found.certificates() {
            endorsements
                .add(certificate.as_der())
                .map_err(|error| malformed(&error))?;
        }
        for list in found.crls() {
            endorsements
                .add_crl(list.as_der())
                .map_err(|error| malformed(&error))?;
        }
    }
    let JsonEvidence {
        report,
        endorsements,
    } = evidence;
    report
        .authenticate(&endorsements, &rules.roots, &rules.references, at)
        .map_err(|verdict| Refusal::of_verdict(&verdict))
}

fn judge_host_data(rules: &Rules, host_data: HostData) -> Option<Refusal> {
    if host_data != HostData::ZERO && rules.bound.contains_key(&host_data) {
        return None;
    }
    let accepted: Vec<String> = rules.bound.keys().map(HostData::to_string).collect();
    let expected = match &accepted[..] {
        [] => "initdata or a policy that broker.toml names, and it names none".to_owned(),
        _ => format!("one of {}", accepted.join(", ")),
    };
    Some(Refusal::new(
        "host-data",
        &expected,
        host_data.to_string(),
        "if this initdata is yours, name its file under `initdata` of broker.toml",
    ))
}

fn judge_image(rules: &Rules, measurement: &agent_evidence::LaunchMeasurement) -> Option<Refusal> {
    let minimum = rules.configuration.minimum.guest_image?;
    let version = rules.configuration.image_version(measurement);
    if version.is_some_and(|version| version >= minimum) {
        return None;
    }
    let received = version.map_or_else(
        || format!("{measurement}, to which guest_images gives no version"),
        |version| format!("version {version}, {measurement}"),
    );
    Some(Refusal::new(
        "guest-image-version",
        &format!("at least {minimum}"),
        received,
        "update the guest image, or lower minimum.guest_image of broker.toml",
    ))
}

/// The document that is bound: what the guest sent, else the owner's.
fn judge_init_data(
    rules: &Rules,
    attestation: &Attestation,
    host_data: HostData,
) -> Result<Option<Initdata>, Refusal> {
    let Some(sent) = &attestation.init_data else {
        return Ok(rules.bound.get(&host_data).cloned().flatten());
    };
    let refused = |received: String| {
        let expected = "the initdata whose digest the report has, in TOML";
        Refusal::new(
            "init-data",
            expected,
            received,
            "nothing: the guest sent other initdata",
        )
    };
    if sent.format != "toml" {
        return Err(refused(format!("the format {:?}", sent.format)));
    }
    let document = Initdata::parse(sent.body.as_bytes());
    let document = document.map_err(|error| refused(error.to_string()))?;
    let digest = HostData(document.digest().host_data());
    if digest != host_data {
        return Err(refused(digest.to_string()));
    }
    Ok(Some(document))
}

/// The log, which REPORT_DATA binds as it was sent.
fn judge_log(rules: &Rules, attestation: &Attestation) -> Result<Option<MeasurementLog>, Refusal> {
    let refused = |received: &str| {
        Refusal::new(
            "measurement-log",
            "the log of a guest whose policy is bound by its report",
            received,
            "guests of others send none: measurement_log = \"optional\" in broker.toml",
        )
    };
    let evidence = &attestation.tee_evidence;
    let minimum = rules.configuration.minimum.policy;
    if evidence.additional_evidence.is_empty() {
        let is_needed =
            rules.configuration.measurement_log == LogRule::Required || minimum.is_some();
        return if is_needed {
            Err(refused("none"))
        } else {
            Ok(None)
        };
    }
    let bytes = evidence
        .log()
        .ok_or_else(|| refused("other additional evidence"))?;
    let log = replay(&bytes).map_err(|error| refused(&error.to_string()))?;
    let policies = policies(&log).ok_or_else(|| refused("a log with a malformed line"))?;
    if policies.is_empty() {
        return Err(refused(
            "a log without a policy: the guest attested before it had one",
        ));
    }
    if policies.iter().any(|(is_bound, _)| !is_bound) {
        return Err(refused("a policy that the report does not bind"));
    }
    for (_, version) in policies {
        if minimum.is_some_and(|minimum| version.is_none_or(|version| version < minimum)) {
            let received = version.map_or("none".to_owned(), |version| version.to_string());
            return Err(Refusal::new(
                "policy-version",
                &format!("at least {}", minimum.unwrap_or_default()),
                received,
                "give the pod its newer policy, or lower minimum.policy of broker.toml",
            ));
        }
    }
    Ok(Some(log))
}

/// Each policy that was taken: whether it is bound, and its version.
fn policies(log: &MeasurementLog) -> Option<Vec<(bool, Option<u64>)>> {
    let mut found = Vec::new();
    for event in log.events() {
        match Entry::of(event) {
            Some(Ok(Entry::Policy(policy))) => found.push((policy.bound, policy.version)),
            Some(Err(_)) => return None,
            _ => {}
        }
    }
    Some(found)
}

/// What a token says of the log: how many containers ran, and which requirements it fulfils.
fn log_claims(rules: &Rules, log: &MeasurementLog) -> Value {
    let mut versions = policies(log).unwrap_or_default();
    let is_container =
        |event| matches!(Entry::of(event), Some(Ok(Entry::Container(one))) if one.image.is_some());
    let containers = log
        .events()
        .iter()
        .filter(|event| is_container(event))
        .count();
    let surplus: Map<String, Value> = rules
        .requirements
        .iter()
        .map(|one| (one.name.clone(), json!(one.workload.surplus_of(log))))
        .collect();
    json!({
        "containers": containers,
        "policy_version": versions.pop().and_then(|(_, version)| version),
        "surplus": surplus,
    })
}

/// Entries of initdata, but for the policy; configuration of the guest's services as JSON.
fn init_data_claims(document: Option<&Initdata>) -> Value {
    let Some(document) = document else {
        return json!({});
    };
    let mut claims = Map::new();
    for (name, text) in document.entries() {
        if [POLICY_ENTRY, DOCUMENT_ENTRY].contains(&name.as_str()) || text.len() > ENTRY_BYTES_MAX {
            continue;
        }
        let parsed = match name.as_str() {
            "aa.toml" | "cdh.toml" => agent_documents::parse_toml::<Value>(text).ok(),
            _ => None,
        };
        claims.insert(name.clone(), parsed.unwrap_or_else(|| json!(text)));
    }
    Value::Object(claims)
}

fn judge_by_rego(rules: &Rules, input: &Value) -> Result<TrustVector, Vec<Refusal>> {
    let refused = |received: &str| {
        let advice = "see the attestation policy that broker.toml names";
        one(
            "attestation-policy",
            "affirming trust claims",
            received,
            advice,
        )
    };
    let trust = rules.attestation.appraise(input);
    let trust = trust.map_err(|error| refused(&error.to_string()))?;
    match trust.tier() {
        Tier::Affirming => Ok(trust),
        tier => Err(refused(&format!("{tier:?}: {:?}", trust.claims()))),
    }
}
