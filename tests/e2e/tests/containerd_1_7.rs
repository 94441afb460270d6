//! Every scenario on containerd 1.7.

tests_e2e::all_scenarios!(tests_harness::Release::V1_7);
