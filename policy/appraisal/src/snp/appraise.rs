//! Appraisal: holds an authentic report against the owner's reference values.

use agent_evidence::{HostData, ReportData, bytes::all_zero};
use serde_json::{Value, json};

use super::{
    AuthenticReport, GuestPolicy, Identities, Mitigations, PlatformInfo, ReferenceValues, Rule,
    Tcb, endorsed,
    fields::Fields,
    ids::ReportId,
    references::{GuestPolicyRules, PlatformRules},
};
use crate::{
    same_bytes::same_bytes,
    verdict::{Check, Findings, Verdict},
};

/// Checks that an authentic report must pass.
pub(crate) const APPRAISAL: &[Check] = &[
    Check::TcbFloor,
    Check::TcbOrder,
    Check::FirmwareFloor,
    Check::Debug,
    Check::Migration,
    Check::GuestPolicy,
    Check::Vmpl,
    Check::ReportData,
    Check::HostData,
    Check::GuestIdentity,
    Check::AuthorKey,
    Check::Platform,
    Check::Mitigations,
];

const NO_MIGRATION_AGENT: ReportId = ReportId([0xFF; ReportId::SIZE]);

/// What this one report must say, beside the reference values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Binds nonce, keys and measurement log.
    pub report_data: ReportData,
    /// Binds initdata or policy; zero if the guest has neither.
    pub host_data: HostData,
}

impl AuthenticReport {
    /// Makes every remaining check, also after one has refused.
    pub fn appraise(self, references: &ReferenceValues, expected: &Expected) -> Verdict {
        self.appraised(references, expected).into_verdict()
    }

    pub(crate) fn appraised(
        mut self,
        references: &ReferenceValues,
        expected: &Expected,
    ) -> Findings {
        self.judge_floors(references);
        let fields = &self.fields;
        let findings = &mut self.findings;
        judge_migration_and_debug(fields, findings);
        judge_guest_policy(fields.policy, &references.guest_policy, findings);
        let levels = &references.vmpl;
        let is_accepted = levels.0.contains(&fields.vmpl);
        findings.note(Check::Vmpl, is_accepted, levels, fields.vmpl);
        let (wanted, found) = (&expected.report_data, &fields.report_data);
        findings.note(
            Check::ReportData,
            same_bytes(&wanted.0, &found.0),
            wanted,
            found,
        );
        let (wanted, found) = (&expected.host_data, &fields.host_data);
        findings.note(
            Check::HostData,
            same_bytes(&wanted.0, &found.0),
            wanted,
            found,
        );
        let is_endorsed = self.endorsement.as_ref().is_some_and(|endorsement| {
            let accepted = &references.identities.endorsed;
            endorsed::judge(endorsement, accepted, fields.measurement, findings)
        });
        judge_identity(fields, &references.identities, is_endorsed, findings);
        judge_author_key(fields, findings);
        judge_platform(fields.platform, &references.platform, findings);
        judge_mitigations(fields, references.mitigations, findings);
        self.findings
    }

    fn judge_floors(&mut self, references: &ReferenceValues) {
        let findings = &mut self.findings;
        let tcbs = &self.tcbs;
        let in_order =
            tcbs.committed.is_at_least(&tcbs.reported) && tcbs.current.is_at_least(&tcbs.committed);
        findings.note(
            Check::TcbOrder,
            in_order,
            "reported ≤ committed ≤ current",
            format_args!("{}; {}; {}", tcbs.reported, tcbs.committed, tcbs.current),
        );
        let Some(floor) = references.products.get(&self.product) else {
            let missing = format!("a floor for {} among the reference values", self.product);
            findings.note(Check::TcbFloor, false, &missing, "none");
            findings.note(Check::FirmwareFloor, false, &missing, "none");
            return;
        };
        let tcb_floor = Tcb::from(floor.tcb);
        let all = [tcbs.reported, tcbs.committed, tcbs.launch, tcbs.current];
        let lowest = all.iter().find(|tcb| !tcb.is_at_least(&tcb_floor));
        findings.note(
            Check::TcbFloor,
            lowest.is_none(),
            format_args!("at least {tcb_floor}"),
            lowest.unwrap_or(&tcbs.reported),
        );
        let firmware = self.fields.committed.min(self.fields.current);
        findings.note(
            Check::FirmwareFloor,
            firmware >= floor.firmware,
            format_args!("at least {}", floor.firmware),
            firmware,
        );
    }

    /// The claims a KBS appraisal policy reads (as CoCo's verifier names them).
    pub fn claims(&self) -> Value {
        let fields = &self.fields;
        let (policy, platform, tcb) = (fields.policy, fields.platform, self.tcbs.reported);
        json!({
            "policy_abi_major": policy.abi_major(),
            "policy_abi_minor": policy.abi_minor(),
            "policy_smt_allowed": policy.smt_allowed(),
            "policy_migrate_ma": policy.migration_allowed(),
            "policy_debug_allowed": policy.debug_allowed(),
            "policy_single_socket": policy.single_socket(),
            "reported_tcb_bootloader": tcb.bootloader,
            "reported_tcb_tee": tcb.tee,
            "reported_tcb_snp": tcb.snp,
            "reported_tcb_microcode": tcb.microcode,
            "platform_tsme_enabled": platform.tsme(),
            "platform_smt_enabled": platform.smt(),
            "measurement": fields.measurement,
            "report_data": fields.report_data,
            "init_data": fields.host_data,
            "chip_id": fields.chip_id,
        })
    }
}

fn judge_migration_and_debug(fields: &Fields, findings: &mut Findings) {
    let policy = fields.policy;
    findings.note(
        Check::Debug,
        !policy.debug_allowed(),
        "debugging not allowed",
        format_args!("guest policy {policy}"),
    );
    findings.note(
        Check::Migration,
        !policy.migration_allowed() && fields.report_id_ma == NO_MIGRATION_AGENT,
        "migration not allowed, no migration agent",
        format_args!("guest policy {policy}, agent {}", fields.report_id_ma),
    );
}

fn judge_guest_policy(policy: GuestPolicy, rules: &GuestPolicyRules, findings: &mut Findings) {
    let demands = [
        (policy.is_known(), "no unknown bits"),
        (policy.reserved_one(), "bit 17"),
        (
            policy.abi_major() == rules.abi_major,
            "the ABI major version",
        ),
        (
            policy.abi_minor() >= rules.abi_minor,
            "the ABI minor version",
        ),
        (rules.smt_allowed || !policy.smt_allowed(), "no SMT"),
        (rules.cxl_allowed || !policy.cxl_allowed(), "no CXL"),
        (
            !rules.single_socket || policy.single_socket(),
            "a single socket",
        ),
        (!rules.aes_256_xts || policy.aes_256_xts(), "AES-256-XTS"),
        (!rules.rapl_disabled || policy.rapl_disabled(), "RAPL off"),
        (
            !rules.ciphertext_hiding || policy.ciphertext_hiding(),
            "ciphertext hiding",
        ),
        (
            !rules.page_swap_disabled || policy.page_swap_disabled(),
            "no page swapping",
        ),
    ];
    note_demands(Check::GuestPolicy, &demands, policy, findings);
}

fn judge_platform(platform: PlatformInfo, rules: &PlatformRules, findings: &mut Findings) {
    let demands = [
        (rules.smt, platform.smt(), "SMT"),
        (rules.tsme, platform.tsme(), "TSME"),
        (rules.ecc, platform.ecc(), "ECC"),
        (rules.rapl_disabled, platform.rapl_disabled(), "RAPL off"),
        (
            rules.ciphertext_hiding,
            platform.ciphertext_hiding(),
            "ciphertext hiding",
        ),
        (
            rules.alias_check_complete,
            platform.alias_check_complete(),
            "the alias check",
        ),
        (rules.tio, platform.tio(), "TIO"),
    ];
    let demands = demands.map(|(rule, is_set, name)| {
        let not = if rule == Rule::Forbidden { "not " } else { "" };
        (rule.allows(is_set), format!("{not}{name}"))
    });
    note_demands(Check::Platform, &demands, platform, findings);
}

fn note_demands(
    check: Check,
    demands: &[(bool, impl AsRef<str>)],
    received: impl std::fmt::Display,
    findings: &mut Findings,
) {
    let unmet: Vec<&str> = demands
        .iter()
        .filter(|(met, _)| !met)
        .map(|(_, demand)| demand.as_ref())
        .collect();
    let expected = match unmet[..] {
        [] => "as the reference values ask".to_owned(),
        _ => unmet.join(", "),
    };
    findings.note(check, unmet.is_empty(), expected, received);
}

fn judge_identity(
    fields: &Fields,
    identities: &Identities,
    is_endorsed: bool,
    findings: &mut Findings,
) {
    let received = format!(
        "measurement {}, id key {}, author key {}, family {}, image {}, svn {}",
        fields.measurement,
        fields.id_key_digest,
        fields.author_key_digest,
        fields.family_id,
        fields.image_id,
        fields.guest_svn
    );
    let passed = is_endorsed || identities.has(fields);
    findings.note(
        Check::GuestIdentity,
        passed,
        identities.describe(),
        received,
    );
}

fn judge_author_key(fields: &Fields, findings: &mut Findings) {
    let has_digest = !all_zero(&fields.author_key_digest.0);
    let expected = if fields.has_author_key() {
        "an author key digest, as key info says"
    } else {
        "no author key digest, as key info says"
    };
    findings.note(
        Check::AuthorKey,
        has_digest == fields.has_author_key(),
        expected,
        fields.author_key_digest,
    );
}

/// A report without the field proves no mitigation.
fn judge_mitigations(fields: &Fields, required: Mitigations, findings: &mut Findings) {
    let Mitigations { launch, current } = required;
    findings.note(
        Check::Mitigations,
        fields.launch_mit_vector & launch == launch
            && fields.current_mit_vector & current == current,
        format_args!("at least {launch:#x} at launch, {current:#x} now"),
        format_args!(
            "{:#x} at launch, {:#x} now (report version {})",
            fields.launch_mit_vector, fields.current_mit_vector, fields.version
        ),
    );
}
