//! The messages of the pod's path on the wire, against bytes written by hand
//! from the field numbers of the Kata Containers 4.1 protocol.

use agent_protocol::rpc::{agent, health, oci, types};
use protobuf::{Message, MessageField};

/// Encodes to exactly these bytes, and decodes back to an equal message.
fn assert_wire<M: Message + PartialEq + std::fmt::Debug>(message: &M, golden: &[u8]) {
    let encoded = message.write_to_bytes();
    assert_eq!(encoded.expect("a complete message"), golden, "encoding");
    let decoded = M::parse_from_bytes(golden);
    assert_eq!(&decoded.expect("golden bytes"), message, "decoding");
}

#[test]
fn create_container_has_golden_bytes() {
    let request = agent::CreateContainerRequest {
        container_id: "c1".into(),
        exec_id: "c1".into(),
        storages: vec![agent::Storage {
            driver: "image_guest_pull".into(),
            source: "r/i:1".into(),
            fstype: "overlay".into(),
            mount_point: "/r".into(),
            shared: true,
            ..Default::default()
        }],
        OCI: MessageField::some(oci::Spec {
            Version: "1".into(),
            Process: MessageField::some(oci::Process {
                Terminal: true,
                Args: vec!["sh".into()],
                Cwd: "/".into(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        sandbox_pidns: true,
        ..Default::default()
    };
    let mut golden = b"\x0a\x02c1\x12\x02c1\x2a\x28\x0a\x10image_guest_pull".to_vec();
    golden.extend_from_slice(b"\x1a\x05r/i:1\x22\x07overlay\x32\x02/r\x40\x01");
    golden.extend_from_slice(b"\x32\x0e\x0a\x011\x12\x09\x08\x01\x22\x02sh\x32\x01/\x38\x01");
    assert_wire(&request, &golden);
}

#[test]
fn create_sandbox_has_golden_bytes() {
    let request = agent::CreateSandboxRequest {
        hostname: "h".into(),
        dns: vec!["nameserver 1.1.1.1".into()],
        sandbox_id: "s1".into(),
        ..Default::default()
    };
    assert_wire(&request, b"\x0a\x01h\x12\x12nameserver 1.1.1.1\x2a\x02s1");
}

#[test]
fn process_calls_have_golden_bytes() {
    let exec = agent::ExecProcessRequest {
        container_id: "c1".into(),
        exec_id: "e1".into(),
        process: MessageField::some(oci::Process {
            Args: vec!["ls".into()],
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_wire(&exec, b"\x0a\x02c1\x12\x02e1\x22\x04\x22\x02ls");
    let signal = agent::SignalProcessRequest {
        container_id: "c1".into(),
        signal: 15,
        ..Default::default()
    };
    assert_wire(&signal, b"\x0a\x02c1\x18\x0f");
    let exited = agent::WaitProcessResponse {
        status: 137,
        ..Default::default()
    };
    assert_wire(&exited, b"\x08\x89\x01");
}

#[test]
fn stream_calls_have_golden_bytes() {
    let write = agent::WriteStreamRequest {
        container_id: "c1".into(),
        data: vec![0, 255],
        ..Default::default()
    };
    assert_wire(&write, b"\x0a\x02c1\x1a\x02\x00\xff");
    let read = agent::ReadStreamRequest {
        container_id: "c1".into(),
        exec_id: "e1".into(),
        len: 300,
        ..Default::default()
    };
    assert_wire(&read, b"\x0a\x02c1\x12\x02e1\x18\xac\x02");
    let resize = agent::TtyWinResizeRequest {
        container_id: "c1".into(),
        row: 24,
        column: 80,
        ..Default::default()
    };
    assert_wire(&resize, b"\x0a\x02c1\x18\x18\x20\x50");
}

#[test]
fn network_calls_have_golden_bytes() {
    let interface = agent::UpdateInterfaceRequest {
        interface: MessageField::some(types::Interface {
            name: "eth0".into(),
            IPAddresses: vec![types::IPAddress {
                family: types::IPFamily::v6.into(),
                address: "::1".into(),
                mask: "128".into(),
                ..Default::default()
            }],
            mtu: 1500,
            hwAddr: "aa".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let golden =
        b"\x0a\x1b\x12\x04eth0\x1a\x0c\x08\x01\x12\x03::1\x1a\x03128\x20\xdc\x0b\x2a\x02aa";
    assert_wire(&interface, golden);
    let routes = agent::UpdateRoutesRequest {
        routes: MessageField::some(agent::Routes {
            Routes: vec![types::Route {
                gateway: "g".into(),
                scope: 253,
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_wire(&routes, b"\x0a\x08\x0a\x06\x12\x01g\x28\xfd\x01");
}

#[test]
fn copy_file_has_golden_bytes_with_negative_owner() {
    let request = agent::CopyFileRequest {
        path: "/p".into(),
        file_size: 2,
        file_mode: 0o100_644,
        uid: -1,
        data: b"hi".to_vec(),
        ..Default::default()
    };
    let golden =
        b"\x0a\x02/p\x10\x02\x18\xa4\x83\x02\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x42\x02hi";
    assert_wire(&request, golden);
}

#[test]
fn health_has_golden_bytes() {
    let response = health::HealthCheckResponse {
        status: health::health_check_response::ServingStatus::SERVING.into(),
        ..Default::default()
    };
    assert_wire(&response, b"\x08\x01");
}

#[test]
fn field_numbers_that_start_at_two_do() {
    let reseed = agent::ReseedRandomDevRequest {
        data: vec![7],
        ..Default::default()
    };
    assert_wire(&reseed, b"\x12\x01\x07");
    let group = agent::FSGroup {
        group_id: 5,
        ..Default::default()
    };
    assert_wire(&group, b"\x10\x05");
}

#[test]
fn unknown_fields_are_tolerated_and_truncation_is_refused() {
    let known = b"\x0a\x02c1";
    let with_unknown = b"\x0a\x02c1\xf8\x07\x01";
    let parsed = agent::StartContainerRequest::parse_from_bytes(with_unknown).unwrap();
    assert_eq!(parsed.container_id, "c1");
    assert!(agent::StartContainerRequest::parse_from_bytes(&known[..3]).is_err());
}

/// The 42 methods, by name, as the host calls them.
#[test]
fn service_has_the_42_methods_of_the_protocol() {
    let schema = include_str!("../proto/agent.proto");
    let methods: Vec<_> = schema
        .lines()
        .filter(|line| line.starts_with("  rpc "))
        .collect();
    assert_eq!(methods.len(), 42);
}
