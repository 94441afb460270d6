//! The connection to a pod's agent, and the requests that concern the pod as a whole.
//!
//! One ttrpc connection serves a pod. Calls that may last as long as a process
//! (`WaitProcess`, the streams, `GetOOMEvent`) have no deadline and end with the
//! connection; all others have one. An answer is decoded only if it is no longer than an
//! answer to that request can be, since a decoded message may take many times its bytes.

use std::time::Duration;

use agent_protocol::{
    id::ContainerId,
    initdata::PolicyText,
    rpc::{
        agent::{
            ARPNeighbors, AddARPNeighborsRequest, CopyFileRequest, CreateSandboxRequest,
            DestroySandboxRequest, GetOOMEventRequest, OOMEvent, Routes, SetPolicyRequest,
            UpdateInterfaceRequest, UpdateRoutesRequest,
        },
        health::CheckRequest,
        types::Interface,
    },
};
use protobuf::Message;
use tokio::net::UnixStream;
use ttrpc::asynchronous::{Client, transport::Socket};

use crate::{AgentError, AnswerError, answers};

/// Deadline of calls that only do a little work in the guest.
pub(crate) const CALL_DEADLINE: Duration = Duration::from_secs(60);
/// The longest answer that holds an id or a number, in bytes.
pub(crate) const SHORT_BYTES_MAX: usize = 1024;

/// The ttrpc services of the agent, as `agent.proto` and `health.proto` name them.
const AGENT: &str = "grpc.AgentService";
const HEALTH: &str = "grpc.Health";

/// The connection to a pod's agent; clones share it.
#[derive(Clone)]
pub struct AgentClient {
    client: Client,
}

/// How long a call may take.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Patience {
    Within(Duration),
    /// It ends with the connection.
    Unbounded,
}

/// Deadline of a call that only does a little work.
pub(crate) const SOON: Patience = Patience::Within(CALL_DEADLINE);

impl Patience {
    /// In ttrpc's terms, where 0 means for ever.
    fn nanoseconds(self) -> i64 {
        match self {
            Self::Within(deadline) => i64::try_from(deadline.as_nanos())
                .unwrap_or(i64::MAX)
                .max(1),
            Self::Unbounded => 0,
        }
    }
}

impl AgentClient {
    /// Speaks to the agent over an open stream.
    pub fn new(stream: UnixStream) -> Self {
        Self {
            client: Client::new(Socket::from(stream)),
        }
    }

    async fn call(
        &self,
        service: &str,
        method: &'static str,
        patience: Patience,
        request: &impl Message,
    ) -> Result<Vec<u8>, AgentError> {
        let failed = |error: &ttrpc::Error| AgentError::new(method, error);
        let payload = request.write_to_bytes();
        let payload = payload.map_err(|error| failed(&ttrpc::Error::Others(error.to_string())))?;
        let request = ttrpc::Request {
            service: service.to_owned(),
            method: method.to_owned(),
            timeout_nano: patience.nanoseconds(),
            payload,
            ..ttrpc::Request::default()
        };
        let answer = self.client.request(request).await;
        Ok(answer.map_err(|error| failed(&error))?.payload)
    }

    /// Makes a request whose answer says no more than that it was done.
    pub(crate) async fn tell(
        &self,
        method: &'static str,
        patience: Patience,
        request: &impl Message,
    ) -> Result<(), AgentError> {
        self.call(AGENT, method, patience, request).await?;
        Ok(())
    }

    /// Makes a request with an answer of so many bytes at most, and has it judged.
    pub(crate) async fn ask<A: Message, T>(
        &self,
        method: &'static str,
        patience: Patience,
        request: &impl Message,
        (bytes_max, parse): (usize, impl FnOnce(A) -> Result<T, AnswerError>),
    ) -> Result<T, AgentError> {
        let bytes = self.call(AGENT, method, patience, request).await?;
        decode(&bytes, bytes_max)
            .and_then(parse)
            .map_err(|error| AgentError::answer(method, error))
    }

    /// Asks whether the agent serves.
    pub async fn check(&self, deadline: Duration) -> Result<(), AgentError> {
        let request = CheckRequest::default();
        let patience = Patience::Within(deadline);
        self.call(HEALTH, "Check", patience, &request).await?;
        Ok(())
    }

    /// Gives the guest its policy, which it takes before anything else.
    pub async fn set_policy(&self, policy: &PolicyText) -> Result<(), AgentError> {
        let request = SetPolicyRequest {
            policy: policy.as_str().to_owned(),
            ..Default::default()
        };
        self.tell("SetPolicy", SOON, &request).await
    }

    /// Gives the guest one of its interfaces.
    pub async fn update_interface(&self, interface: Interface) -> Result<(), AgentError> {
        let request = UpdateInterfaceRequest {
            interface: Some(interface).into(),
            ..Default::default()
        };
        self.tell("UpdateInterface", SOON, &request).await
    }

    /// Gives the guest its permanent neighbours.
    pub async fn add_neighbours(&self, neighbours: ARPNeighbors) -> Result<(), AgentError> {
        let request = AddARPNeighborsRequest {
            neighbors: Some(neighbours).into(),
            ..Default::default()
        };
        self.tell("AddARPNeighbors", SOON, &request).await
    }

    /// Gives the guest all of its routes.
    pub async fn update_routes(&self, routes: Routes) -> Result<(), AgentError> {
        let request = UpdateRoutesRequest {
            routes: Some(routes).into(),
            ..Default::default()
        };
        self.tell("UpdateRoutes", SOON, &request).await
    }

    /// Makes the pod-wide namespaces and mounts.
    pub async fn create_sandbox(&self, request: &CreateSandboxRequest) -> Result<(), AgentError> {
        self.tell("CreateSandbox", SOON, request).await
    }

    /// Asks the agent to end everything.
    pub async fn destroy_sandbox(&self, deadline: Duration) -> Result<(), AgentError> {
        let request = DestroySandboxRequest::default();
        let patience = Patience::Within(deadline);
        self.tell("DestroySandbox", patience, &request).await
    }

    /// Sends a piece of a file.
    pub async fn copy_file(&self, request: &CopyFileRequest) -> Result<(), AgentError> {
        self.tell("CopyFile", SOON, request).await
    }

    /// Waits for the next container that ran out of memory.
    ///
    /// # Errors
    ///
    /// Also when the guest names one that is not of this pod.
    pub async fn oom_event(
        &self,
        is_of_this_pod: impl Fn(&ContainerId) -> bool,
    ) -> Result<ContainerId, AgentError> {
        let request = GetOOMEventRequest::default();
        let parse = |event: OOMEvent| answers::out_of_memory(&event, is_of_this_pod);
        let answer = (SHORT_BYTES_MAX, parse);
        self.ask("GetOOMEvent", Patience::Unbounded, &request, answer)
            .await
    }
}

/// Decodes an answer that is not too long for its kind.
///
/// # Errors
///
/// [`AnswerError::TooLong`] before anything is decoded, or [`AnswerError::Malformed`].
pub(crate) fn decode<A: Message>(bytes: &[u8], max: usize) -> Result<A, AnswerError> {
    if bytes.len() > max {
        return Err(AnswerError::TooLong { max });
    }
    A::parse_from_bytes(bytes).map_err(|_| AnswerError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_decoded_only_if_it_is_short_enough() {
        let event = OOMEvent {
            container_id: "web".into(),
            ..Default::default()
        };
        let bytes = event.write_to_bytes().unwrap();
        assert_eq!(decode::<OOMEvent>(&bytes, bytes.len()), Ok(event));
        let max = bytes.len() - 1;
        assert_eq!(
            decode::<OOMEvent>(&bytes, max),
            Err(AnswerError::TooLong { max })
        );
        assert_eq!(
            decode::<OOMEvent>(b"\x0a\x7f", 10),
            Err(AnswerError::Malformed)
        );
    }

    #[test]
    fn no_deadline_is_for_ever_by_accident() {
        assert_eq!(Patience::Unbounded.nanoseconds(), 0);
        assert_eq!(Patience::Within(Duration::ZERO).nanoseconds(), 1);
        assert_eq!(Patience::Within(Duration::MAX).nanoseconds(), i64::MAX);
    }
}
