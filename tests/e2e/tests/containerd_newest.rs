//! Every scenario on the newest containerd.

tests_e2e::all_scenarios!(tests_harness::Release::Newest);
