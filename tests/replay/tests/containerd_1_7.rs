//! containerd 1.7: the pods whose outcome can depend on the release.

#[test]
fn what_a_release_can_change_is_as_on_a_plain_node() -> anyhow::Result<()> {
    tests_replay::play_what_depends_on(tests_harness::Release::V1_7)
}
