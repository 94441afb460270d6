//! Every scenario on containerd 2.1, and those that no other release could change.

tests_e2e::all_scenarios!(tests_harness::Release::V2_1);

mod once {
    tests_e2e::scenarios! { tests_harness::Release::V2_1;
        attest:
            a_changed_launch_is_refused_by_name;
    }
}
