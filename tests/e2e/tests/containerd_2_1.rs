//! containerd 2.1: every scenario, and those that no other release could change.

tests_e2e::scenarios_of_the_release!(tests_harness::Release::V2_1);

mod any_release {
    tests_e2e::scenarios_of_any_release!(tests_harness::Release::V2_1);
}

mod once {
    tests_e2e::scenarios! { tests_harness::Release::V2_1;
        attest:
            a_changed_launch_is_refused_by_name;
        keys:
            a_key_reaches_the_genuine_pod_and_no_changed_one;
    }
}
