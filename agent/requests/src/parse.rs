//! What all requests share: the trait by which a message becomes one, and the checks of
//! ids, lengths and texts.

use agent_protocol::id::{ContainerId, ProcessId};

use crate::error::RequestError;

/// A request that can be made of a message of the protocol.
pub trait Parse: policy_engine::Request + Sized {
    /// The message.
    type Message;

    /// Checks the message.
    ///
    /// # Errors
    ///
    /// [`RequestError`] names the field and the rule it breaks.
    fn parse(message: Self::Message) -> Result<Self, RequestError>;
}

pub(crate) fn container_id(text: &str) -> Result<ContainerId, RequestError> {
    ContainerId::parse(text).map_err(RequestError::ContainerId)
}

pub(crate) fn process_id(container: &ContainerId, exec: &str) -> Result<ProcessId, RequestError> {
    ProcessId::parse(container, exec).map_err(RequestError::ExecId)
}

pub(crate) fn at_most(field: &'static str, len: usize, max: usize) -> Result<(), RequestError> {
    if len > max {
        return Err(RequestError::TooLarge { field, max });
    }
    Ok(())
}

/// Text that can become a C string.
pub(crate) fn no_zero(field: &'static str, text: &str) -> Result<(), RequestError> {
    if text.contains('\0') {
        return Err(RequestError::Invalid(field));
    }
    Ok(())
}

pub(crate) fn texts(field: &'static str, list: &[String], max: usize) -> Result<(), RequestError> {
    at_most(field, list.len(), max)?;
    list.iter().try_for_each(|text| no_zero(field, text))
}

/// The rule of each request, and what of it is judged beside its kind.
macro_rules! rule {
    ($($name:ty => $rule:literal $(, |$request:ident| $asked:expr)?;)*) => {
        $(impl policy_engine::Request for $name {
            const RULE: &'static str = $rule;

            $(fn asked(&self) -> policy_engine::Asked<'_> {
                let $request = self;
                $asked
            })?
        })*
    };
}
pub(crate) use rule;
