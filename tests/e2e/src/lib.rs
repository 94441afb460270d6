//! Pods on a real containerd, from outside.
//!
//! Each function here is a scenario: a claim about what a user gets, on a
//! [`Stage`] with one containerd release. The files under `tests/` run the same
//! scenarios on each release. Scenarios that only look into a container share one
//! pod, because starting a VM takes seconds; scenarios that break the node have
//! it to themselves.
//!
//! containerd 2.1 plays every scenario. The other releases play those whose outcome can depend
//! on the release, because containerd's own part decides it: how it pulls and for which
//! snapshotter, what it hands to the shim, how it connects streams, and how it cleans up
//! after a shim that died. With the feature `all-releases` (`hack/test --all-releases`)
//! they play every one, too.
//!
//! `KATA_CC_TEST_HANDLER=runc` runs what is not about VMs on the baseline, which
//! tells a wrong test from a wrong runtime.

mod stage;

pub mod attest;
pub mod bad_input;
pub mod confined;
pub mod exec;
pub mod image;
pub mod keys;
pub mod kill;
pub mod life;
pub mod many;
pub mod network;
pub mod policy;
pub mod process;
pub mod protected;
pub mod scratch;
pub mod terminal;
pub mod volumes;

pub use stage::Stage;

/// Makes a test of each scenario, on one containerd release.
#[macro_export]
macro_rules! scenarios {
    ($release:expr; $($module:ident: $($name:ident),+ $(,)?;)+) => {
        $(mod $module {
            $(#[test]
            fn $name() -> anyhow::Result<()> {
                $crate::Stage::play($release, $crate::$module::$name)
            })+
        })+
    };
}

/// Makes a test of each scenario whose outcome can depend on the release.
#[macro_export]
macro_rules! scenarios_of_the_release {
    ($release:expr) => {
        $crate::scenarios! { $release;
            process:
                a_pod_runs_to_completion_and_its_exit_code_is_reported,
                what_the_pod_leaves_open_comes_from_the_image,
                a_container_has_what_kubelet_asks_for,
                logs_hold_both_streams_long_lines_and_the_last_words;
            exec:
                exit_codes_and_streams_are_kept_apart,
                the_end_of_standard_input_is_seen,
                a_terminal_is_a_terminal_and_can_be_resized;
            life:
                sigterm_comes_first_and_sigkill_when_it_is_ignored,
                a_container_out_of_memory_is_reported_as_such,
                stats_are_plausible;
            image:
                the_node_downloads_no_layer,
                pods_run_after_the_snapshotters_directory_was_wiped;
            attest:
                a_pod_with_initdata_runs,
                a_pod_proves_what_ran_and_every_change_is_refused_by_name;
            protected:
                images_run_if_their_owner_protected_them_and_others_do_not;
            bad_input:
                a_wrong_handler_is_named,
                an_image_that_does_not_exist_is_named;
            kill:
                nothing_is_left_when_the_shim_is_killed_while_the_vm_boots,
                nothing_is_left_when_the_shim_is_killed_while_an_image_is_pulled,
                nothing_is_left_when_the_shim_of_a_running_pod_is_killed,
                nothing_is_left_when_qemu_of_a_running_pod_is_killed,
                nothing_is_left_when_the_shim_is_killed_while_the_pod_stops,
                nothing_is_left_when_the_shim_is_killed_while_the_pod_is_removed;
        }
    };
}

/// Makes a test of each scenario whose outcome cannot: one release is enough for it.
#[macro_export]
macro_rules! scenarios_of_any_release {
    ($release:expr) => {
        $crate::scenarios! { $release;
            process:
                arguments_environment_user_and_directory_are_the_pods,
                a_read_only_root_refuses_writes,
                containers_of_a_pod_share_network_and_ipc_but_not_processes;
            exec:
                sixty_four_mebibytes_of_output_arrive_unchanged;
            life:
                one_container_restarts_while_another_runs_on;
            network:
                pods_reach_each_other_and_the_node_and_it_them;
            volumes:
                a_pods_volumes_are_what_they_are_on_a_plain_node;
            scratch:
                what_a_pod_writes_lies_encrypted_on_the_node_and_goes_with_it;
            attest:
                what_the_guest_cannot_take_is_named,
                a_guest_whose_launch_binds_something_else_refuses_everything;
            confined:
                qemu_of_a_pod_is_nobody_and_finds_nothing_of_the_node;
            many:
                ten_pods_run_at_once;
            policy:
                kata_cc_run_makes_the_pods_policy_or_takes_it_from_a_file;
            bad_input:
                malformed_yaml_is_named_with_its_place,
                a_pod_that_needs_the_nodes_namespaces_is_refused_and_leaves_nothing,
                an_unreachable_registry_is_named,
                a_layer_with_a_wrong_digest_is_refused_and_named,
                an_unknown_configuration_key_is_named_with_file_and_line,
                a_missing_kernel_is_named,
                a_pod_larger_than_the_node_is_refused;
            kill:
                nothing_is_left_when_qemu_is_killed_while_the_vm_boots,
                nothing_is_left_when_qemu_is_killed_while_an_image_is_pulled,
                nothing_is_left_when_qemu_is_killed_while_the_pod_stops,
                nothing_is_left_when_the_shim_is_killed_during_an_exec,
                nothing_is_left_when_qemu_is_killed_during_an_exec,
                nothing_is_left_when_qemu_is_killed_while_the_pod_is_removed;
        }
    };
}
