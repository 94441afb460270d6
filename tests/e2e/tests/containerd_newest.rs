//! The newest containerd: the scenarios that depend on the release.

tests_e2e::scenarios_of_the_release!(tests_harness::Release::Newest);

#[cfg(feature = "all-releases")]
mod any_release {
    tests_e2e::scenarios_of_any_release!(tests_harness::Release::Newest);
}
