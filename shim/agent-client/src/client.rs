//! The connection to a pod's agent, and the requests that concern the pod as a whole.
//!
//! One ttrpc connection serves a pod. Calls that may last as long as a process
//! (`WaitProcess`, the streams, `GetOOMEvent`) have no deadline and end with the
//! connection; all others have one.

use std::{future::Future, time::Duration};

use agent_protocol::{
    initdata::PolicyText,
    rpc::{
        agent::{
            ARPNeighbors, AddARPNeighborsRequest, CopyFileRequest, CreateSandboxRequest,
            DestroySandboxRequest, GetOOMEventRequest, Routes, SetPolicyRequest,
            UpdateInterfaceRequest, UpdateRoutesRequest,
        },
        agent_ttrpc::AgentServiceClient,
        health::CheckRequest,
        health_ttrpc::HealthClient,
        types::Interface,
    },
};
use tokio::net::UnixStream;
use ttrpc::{
    asynchronous::{Client, transport::Socket},
    context::{self, Context},
};

use crate::AgentError;

/// Deadline of calls that only do a little work in the guest.
pub(crate) const CALL_DEADLINE: Duration = Duration::from_secs(60);

/// The connection to a pod's agent; clones share it.
#[derive(Clone)]
pub struct AgentClient {
    pub(crate) agent: AgentServiceClient,
    health: HealthClient,
}

pub(crate) fn within(deadline: Duration) -> Context {
    context::with_duration(deadline)
}

pub(crate) fn unbounded() -> Context {
    context::with_timeout(0)
}

pub(crate) async fn call<T>(
    method: &'static str,
    answer: impl Future<Output = ttrpc::Result<T>>,
) -> Result<T, AgentError> {
    answer.await.map_err(|source| AgentError { method, source })
}

impl AgentClient {
    /// Speaks to the agent over an open stream.
    pub fn new(stream: UnixStream) -> Self {
        let client = Client::new(Socket::from(stream));
        Self {
            agent: AgentServiceClient::new(client.clone()),
            health: HealthClient::new(client),
        }
    }

    /// Asks whether the agent serves.
    pub async fn check(&self, deadline: Duration) -> Result<(), AgentError> {
        let request = CheckRequest::default();
        call("Check", self.health.check(within(deadline), &request)).await?;
        Ok(())
    }

    /// Gives the guest its policy, which it takes before anything else.
    pub async fn set_policy(&self, policy: &PolicyText) -> Result<(), AgentError> {
        let request = SetPolicyRequest {
            policy: policy.as_str().to_owned(),
            ..Default::default()
        };
        let answer = self.agent.set_policy(within(CALL_DEADLINE), &request);
        call("SetPolicy", answer).await?;
        Ok(())
    }

    /// Gives the guest one of its interfaces.
    pub async fn update_interface(&self, interface: Interface) -> Result<(), AgentError> {
        let request = UpdateInterfaceRequest {
            interface: Some(interface).into(),
            ..Default::default()
        };
        let answer = self.agent.update_interface(within(CALL_DEADLINE), &request);
        call("UpdateInterface", answer).await?;
        Ok(())
    }

    /// Gives the guest its permanent neighbours.
    pub async fn add_neighbours(&self, neighbours: ARPNeighbors) -> Result<(), AgentError> {
        let request = AddARPNeighborsRequest {
            neighbors: Some(neighbours).into(),
            ..Default::default()
        };
        let answer = self
            .agent
            .add_arp_neighbors(within(CALL_DEADLINE), &request);
        call("AddARPNeighbors", answer).await?;
        Ok(())
    }

    /// Gives the guest all of its routes.
    pub async fn update_routes(&self, routes: Routes) -> Result<(), AgentError> {
        let request = UpdateRoutesRequest {
            routes: Some(routes).into(),
            ..Default::default()
        };
        let answer = self.agent.update_routes(within(CALL_DEADLINE), &request);
        call("UpdateRoutes", answer).await?;
        Ok(())
    }

    /// Makes the pod-wide namespaces and mounts.
    pub async fn create_sandbox(&self, request: &CreateSandboxRequest) -> Result<(), AgentError> {
        let answer = self.agent.create_sandbox(within(CALL_DEADLINE), request);
        call("CreateSandbox", answer).await?;
        Ok(())
    }

    /// Asks the agent to end everything.
    pub async fn destroy_sandbox(&self, deadline: Duration) -> Result<(), AgentError> {
        let request = DestroySandboxRequest::default();
        let answer = self.agent.destroy_sandbox(within(deadline), &request);
        call("DestroySandbox", answer).await?;
        Ok(())
    }

    /// Sends a piece of a file.
    pub async fn copy_file(&self, request: &CopyFileRequest) -> Result<(), AgentError> {
        let answer = self.agent.copy_file(within(CALL_DEADLINE), request);
        call("CopyFile", answer).await?;
        Ok(())
    }

    /// Waits for the next container that ran out of memory.
    pub async fn oom_event(&self) -> Result<String, AgentError> {
        let request = GetOOMEventRequest::default();
        let answer = self.agent.get_oom_event(unbounded(), &request);
        Ok(call("GetOOMEvent", answer).await?.container_id)
    }
}
