//! Bytes of the host, as the message that the first byte chooses.

#![no_main]

use agent_requests::{self as request, Parse};
use protobuf::Message;

fn parse<R: Parse<Message: Message>>(bytes: &[u8]) {
    if let Ok(message) = R::Message::parse_from_bytes(bytes) {
        let _ = R::parse(message);
    }
}

const PARSERS: &[fn(&[u8])] = &[
    parse::<request::AddArpNeighbors>,
    parse::<request::CloseStdin>,
    parse::<request::CopyFile>,
    parse::<request::CreateContainer>,
    parse::<request::CreateSandbox>,
    parse::<request::ExecProcess>,
    parse::<request::GetDiagnosticData>,
    parse::<request::GetVolumeStats>,
    parse::<request::PauseContainer>,
    parse::<request::ReadStream>,
    parse::<request::RemoveContainer>,
    parse::<request::ResumeContainer>,
    parse::<request::SetPolicy>,
    parse::<request::SignalProcess>,
    parse::<request::StartContainer>,
    parse::<request::StatsContainer>,
    parse::<request::TtyWinResize>,
    parse::<request::UpdateContainer>,
    parse::<request::UpdateInterface>,
    parse::<request::UpdateRoutes>,
    parse::<request::WaitProcess>,
    parse::<request::WriteStdin>,
];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((first, rest)) = bytes.split_first() {
        PARSERS[usize::from(*first) % PARSERS.len()](rest);
    }
});
