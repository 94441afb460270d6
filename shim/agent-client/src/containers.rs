//! Requests that concern one container.

use std::time::Duration;

use agent_protocol::rpc::{
    agent::{
        CreateContainerRequest, GetDiagnosticDataRequest, GetDiagnosticDataResponse,
        PauseContainerRequest, RemoveContainerRequest, ResumeContainerRequest,
        StartContainerRequest, StatsContainerRequest, StatsContainerResponse,
        UpdateContainerRequest,
    },
    oci::LinuxResources,
};

use crate::{
    AgentClient, AgentError, GuestText, Stats, answers,
    client::{Patience, SOON},
};

/// The longest answer with a container's numbers, in bytes.
const STATS_BYTES_MAX: usize = 64 << 10;
/// The longest answer with a termination message, in bytes: any message that Kubernetes shows,
/// and some that it cuts.
const DIAGNOSTIC_BYTES_MAX: usize = 64 << 10;

impl AgentClient {
    /// Pulls the image and makes the container; the process waits to be started.
    pub async fn create_container(
        &self,
        request: &CreateContainerRequest,
        deadline: Duration,
    ) -> Result<(), AgentError> {
        self.tell("CreateContainer", Patience::Within(deadline), request)
            .await
    }

    /// Lets a container's first process run.
    pub async fn start_container(&self, id: &str) -> Result<(), AgentError> {
        let request = StartContainerRequest {
            container_id: id.to_owned(),
            ..Default::default()
        };
        self.tell("StartContainer", SOON, &request).await
    }

    /// Removes a container and what it mounted.
    pub async fn remove_container(&self, id: &str) -> Result<(), AgentError> {
        let request = RemoveContainerRequest {
            container_id: id.to_owned(),
            ..Default::default()
        };
        self.tell("RemoveContainer", SOON, &request).await
    }

    /// Reads a container's cgroup.
    ///
    /// # Errors
    ///
    /// Also when the numbers are not such as a container can have.
    pub async fn stats(&self, id: &str) -> Result<Stats, AgentError> {
        let request = StatsContainerRequest {
            container_id: id.to_owned(),
            ..Default::default()
        };
        let parse = |answer: StatsContainerResponse| Stats::parse(&answer);
        self.ask("StatsContainer", SOON, &request, (STATS_BYTES_MAX, parse))
            .await
    }

    /// Changes a container's limits.
    pub async fn update(&self, id: &str, resources: LinuxResources) -> Result<(), AgentError> {
        let request = UpdateContainerRequest {
            container_id: id.to_owned(),
            resources: Some(resources).into(),
            ..Default::default()
        };
        self.tell("UpdateContainer", SOON, &request).await
    }

    /// Freezes a container.
    pub async fn pause(&self, id: &str) -> Result<(), AgentError> {
        let request = PauseContainerRequest {
            container_id: id.to_owned(),
            ..Default::default()
        };
        self.tell("PauseContainer", SOON, &request).await
    }

    /// Thaws a container.
    pub async fn resume(&self, id: &str) -> Result<(), AgentError> {
        let request = ResumeContainerRequest {
            container_id: id.to_owned(),
            ..Default::default()
        };
        self.tell("ResumeContainer", SOON, &request).await
    }

    /// Reads the message that a container left in its termination log.
    pub async fn termination_log(&self, id: &str) -> Result<GuestText, AgentError> {
        let request = GetDiagnosticDataRequest {
            log_type: "termination_log".to_owned(),
            container_id: id.to_owned(),
            ..Default::default()
        };
        let parse = |answer: GetDiagnosticDataResponse| Ok(answers::termination_message(&answer));
        let answer = (DIAGNOSTIC_BYTES_MAX, parse);
        self.ask("GetDiagnosticData", SOON, &request, answer).await
    }
}
