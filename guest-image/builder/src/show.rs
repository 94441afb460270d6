//! A guest image as a table for people.

use std::fmt::Write;

use crate::manifest::Manifest;

/// The manifest as lines of a name and a value.
#[must_use]
pub fn table(manifest: &Manifest) -> String {
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
    let kernel = &manifest.kernel;
    row("kernel", kernel.release.clone());
    if let (Some(package), Some(version)) = (&kernel.package, &kernel.package_version) {
        row("package", format!("{package} {version}"));
    }
    let guard = if kernel.guard { "yes" } else { "no" };
    row("guard against ACPI", guard.to_owned());
    if let Some(from) = &kernel.built_from {
        row(
            "kernel's source",
            format!("{} {}", from.source_sha256, from.source),
        );
        row("  features", from.features_sha256.clone());
        row("  configuration", from.configuration_sha256.clone());
        row("  patch", from.patch_sha256.clone());
        row("  built with", from.tools.join(", "));
        row("  stamps", from.stamps.join(", "));
    }
    row("command line", manifest.cmdline.clone());
    for (name, file) in &manifest.files {
        row(name, format!("{} {}", file.sha256, size(file.bytes)));
    }
    let initrd = &manifest.initrd;
    row(
        "initrd",
        format!(
            "{}, {} unpacked",
            initrd.compression,
            size(initrd.unpacked_bytes)
        ),
    );
    row("certificates", initrd.certificates.to_string());
    let modules = &manifest.modules;
    row("modules at boot", names(&modules.boot));
    for (feature, paths) in &modules.on_demand {
        let names = if paths.is_empty() {
            "built in or loaded at boot".to_owned()
        } else {
            names(paths)
        };
        row(&format!("  for {feature}"), names);
    }
    row("modules missing", words(modules.missing.iter()));
    for (role, file) in &manifest.inputs {
        row(
            &format!("input {role}"),
            format!("{} {}", file.sha256, size(file.bytes)),
        );
    }
    row("builder", manifest.builder.version.clone());
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for (name, value) in rows {
        writeln!(out, "{name:width$}  {value}").expect("a string takes any text");
    }
    out
}

fn names(paths: &[String]) -> String {
    let file = |path: &String| {
        let name = path.rsplit('/').next().unwrap_or(path);
        name.trim_end_matches(".ko").to_owned()
    };
    words(paths.iter().map(file))
}

fn words(items: impl Iterator<Item = impl AsRef<str>>) -> String {
    let items: Vec<String> = items.map(|item| item.as_ref().to_owned()).collect();
    if items.is_empty() {
        "none".to_owned()
    } else {
        items.join(" ")
    }
}

fn size(bytes: u64) -> String {
    let tenths = bytes * 10 / (1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}
