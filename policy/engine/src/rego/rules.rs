//! The names of the rules that are asked: of each request's message, as in Kata's agent.

/// The rule that turned denials off in Kata's agent.
pub(super) const IGNORE_FAILURES: &str = "AllowRequestsFailingPolicy";

/// Every rule, by name.
pub const RULES: &[&str] = &[
    "AddARPNeighborsRequest",
    "AddSwapPathRequest",
    "AddSwapRequest",
    IGNORE_FAILURES,
    "CloseStdinRequest",
    "CopyFileRequest",
    "CreateContainerRequest",
    "CreateSandboxRequest",
    "DestroySandboxRequest",
    "ExecProcessRequest",
    "GetDiagnosticDataRequest",
    "GetIPTablesRequest",
    "GetMetricsRequest",
    "GetOOMEventRequest",
    "GuestDetailsRequest",
    "ListInterfacesRequest",
    "ListRoutesRequest",
    "MemAgentCompactConfig",
    "MemAgentMemcgConfig",
    "MemHotplugByProbeRequest",
    "OnlineCPUMemRequest",
    "PauseContainerRequest",
    "ReadStreamRequest",
    "RemoveContainerRequest",
    "RemoveStaleVirtiofsShareMountsRequest",
    "ReseedRandomDevRequest",
    "ResizeVolumeRequest",
    "ResumeContainerRequest",
    "SetGuestDateTimeRequest",
    "SetIPTablesRequest",
    "SetPolicyRequest",
    "SignalProcessRequest",
    "StartContainerRequest",
    "StatsContainerRequest",
    "TtyWinResizeRequest",
    "UpdateContainerRequest",
    "UpdateEphemeralMountsRequest",
    "UpdateInterfaceRequest",
    "UpdateRoutesRequest",
    "VolumeStatsRequest",
    "WaitProcessRequest",
    "WriteStreamRequest",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use agent_protocol::rpc::agent;

    use super::*;

    #[test]
    fn each_request_of_the_service_has_its_rule_and_no_other_is_asked() {
        let file = agent::file_descriptor().proto();
        let methods = file.service.iter().flat_map(|service| &service.method);
        let asked: BTreeSet<String> = methods
            .map(|method| method.input_type().rsplit('.').next().unwrap().to_owned())
            .collect();
        let rules = RULES.iter().filter(|rule| **rule != IGNORE_FAILURES);
        let rules: BTreeSet<String> = rules.map(|&rule| rule.to_owned()).collect();
        assert_eq!(rules, asked);
    }
}
