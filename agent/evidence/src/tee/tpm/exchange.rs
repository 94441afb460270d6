//! One command, one response.

use std::{
    io::{self, Read, Write},
    thread,
    time::Duration,
};

use super::{
    command::Command,
    error::TpmError,
    response::{MAX_RESPONSE_LEN, Parameters, Response, ResponseError},
};

/// "Send it again": `TPM_RC_YIELDED`, `_TESTING`, `_NV_RATE`, `_RETRY`.
const TRY_AGAIN: [u32; 4] = [0x908, 0x90A, 0x920, 0x922];
const MAX_TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// The parameters of a response, not yet read.
pub(super) struct Answer {
    command: Command,
    parameters: Vec<u8>,
}

impl Answer {
    /// Reads them as those of the command.
    pub(super) fn read<'a, R>(
        &'a self,
        read: impl FnOnce(Parameters<'a>) -> Result<R, ResponseError>,
    ) -> Result<R, TpmError> {
        read(Parameters::of(&self.parameters)).map_err(|source| malformed(self.command, source))
    }
}

/// Sends a command until the TPM is not too busy for it.
pub(super) fn ask<T: Read + Write>(
    channel: &mut T,
    command: Command,
    handles: &[u32],
    parameters: &[u8],
) -> Result<Answer, TpmError> {
    let frame = command.frame(handles, parameters);
    let mut tries = 1;
    loop {
        let mut response = [0; MAX_RESPONSE_LEN];
        let response = exchange(channel, command, &frame, &mut response)?;
        match Response::parse(command, response).map_err(|error| malformed(command, error))? {
            Response::Done(parameters) => {
                let parameters = parameters.to_vec();
                return Ok(Answer {
                    command,
                    parameters,
                });
            }
            Response::Refused(code) if tries < MAX_TRIES && TRY_AGAIN.contains(&code) => {
                tries += 1;
                thread::sleep(PAUSE);
            }
            Response::Refused(code) => return Err(TpmError::Refused { command, code }),
        }
    }
}

fn exchange<'a, T: Read + Write>(
    channel: &mut T,
    command: Command,
    frame: &[u8],
    response: &'a mut [u8],
) -> Result<&'a [u8], TpmError> {
    let failed = |step| {
        move |source| TpmError::Device {
            step,
            command,
            source,
        }
    };
    let written = channel.write(frame).map_err(failed("write to"))?;
    if written != frame.len() {
        return Err(failed("write to")(io::ErrorKind::WriteZero.into()));
    }
    let length = channel.read(response).map_err(failed("read from"))?;
    Ok(response.get(..length).unwrap_or_default())
}

pub(super) fn malformed(command: Command, source: ResponseError) -> TpmError {
    TpmError::Malformed { command, source }
}
