//! Requests that concern one container.

use std::time::Duration;

use agent_protocol::rpc::{
    agent::{
        CreateContainerRequest, GetDiagnosticDataRequest, PauseContainerRequest,
        RemoveContainerRequest, ResumeContainerRequest, StartContainerRequest,
        StatsContainerRequest, StatsContainerResponse, UpdateContainerRequest,
    },
    oci::LinuxResources,
};

use crate::{
    AgentClient, AgentError,
    client::{CALL_DEADLINE, call, within},
};

impl AgentClient {
    /// Pulls the image and makes the container; the process waits to be started.
    pub async fn create_container(
        &self,
        request: &CreateContainerRequest,
        deadline: Duration,
    ) -> Result<(), AgentError> {
        let answer = self.agent.create_container(within(deadline), request);
        call("CreateContainer", answer).await?;
        Ok(())
    }

    /// Lets a container's first process run.
    pub async fn start_container(&self, id: &str) -> Result<(), AgentError> {
        let request = StartContainerRequest {
            container_id: id.to_owned(),
            ..Default::default()
        };
        let answer = self.agent.start_container(within(CALL_DEADLINE), &request);
        call("StartContainer", answer).await?;
        Ok(())
    }

    /// Removes a container and what it mounted.
    pub async fn remove_container(&self, id: &str) -> Result<(), AgentError> {
        let request = RemoveContainerRequest {
            container_id: id.to_owned(),
            ..Default::default()
        };
        let answer = self.agent.remove_container(within(CALL_DEADLINE), &request);
        call("RemoveContainer", answer).await?;
        Ok(())
    }

    /// Reads a container's cgroup.
    pub async fn stats(&self, id: &str) -> Result<StatsContainerResponse, AgentError> {
        let request = StatsContainerRequest {
            container_id: id.to_owned(),
            ..Default::default()
        };
        let answer = self.agent.stats_container(within(CALL_DEADLINE), &request);
        call("StatsContainer", answer).await
    }

    /// Changes a container's limits.
    pub async fn update(&self, id: &str, resources: LinuxResources) -> Result<(), AgentError> {
        let request = UpdateContainerRequest {
            container_id: id.to_owned(),
            resources: Some(resources).into(),
            ..Default::default()
        };
        let answer = self.agent.update_container(within(CALL_DEADLINE), &request);
        call("UpdateContainer", answer).await?;
        Ok(())
    }

    /// Freezes a container.
    pub async fn pause(&self, id: &str) -> Result<(), AgentError> {
        let request = PauseContainerRequest {
            container_id: id.to_owned(),
            ..Default::default()
        };
        let answer = self.agent.pause_container(within(CALL_DEADLINE), &request);
        call("PauseContainer", answer).await?;
        Ok(())
    }

    /// Thaws a container.
    pub async fn resume(&self, id: &str) -> Result<(), AgentError> {
        let request = ResumeContainerRequest {
            container_id: id.to_owned(),
            ..Default::default()
        };
        let answer = self.agent.resume_container(within(CALL_DEADLINE), &request);
        call("ResumeContainer", answer).await?;
        Ok(())
    }

    /// Reads the message that a container left in its termination log.
    pub async fn termination_log(&self, id: &str) -> Result<String, AgentError> {
        let request = GetDiagnosticDataRequest {
            log_type: "termination_log".to_owned(),
            container_id: id.to_owned(),
            ..Default::default()
        };
        let answer = self
            .agent
            .get_diagnostic_data(within(CALL_DEADLINE), &request);
        Ok(call("GetDiagnosticData", answer).await?.data)
    }
}
