//! Every scenario on containerd 2.1.

tests_e2e::all_scenarios!(tests_harness::Release::V2_1);
