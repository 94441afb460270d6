//! containerd 1.7: the scenarios that depend on the release.

tests_e2e::scenarios_of_the_release!(tests_harness::Release::V1_7);

#[cfg(feature = "all-releases")]
mod any_release {
    tests_e2e::scenarios_of_any_release!(tests_harness::Release::V1_7);
}
