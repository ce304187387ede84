//! The page that goes with a package: what to do on that very board.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{BUNDLE, Description, RUN};
use crate::{
    device::{Catalog, Device, GpuOrigin, Provider},
    library::PROVISIONED_DIR,
};

/// The page for a device, as Markdown.
pub fn of(catalog: &Catalog, device: &Device, description: &Description) -> String {
    let mut page = format!("# nasbn on {}\n\n", device.title);
    contents(&mut page, description);
    first_commands(&mut page);
    gpu(&mut page, catalog, device);
    clocks(&mut page, device);
    memory(&mut page, device);
    trouble(&mut page, catalog, device, description);
    page
}

fn contents(page: &mut String, description: &Description) {
    let jetpack = description.jetpack.as_ref().map(|v| format!(" (JetPack {v})")).unwrap_or_default();
    let _ = write!(
        page,
        "Made for {}{jetpack}, glibc {} or newer. Nothing is installed: all of it runs in this directory.\n\n\
         | file | is |\n| --- | --- |\n\
         | `{RUN}` | starts nasbn with the library and the bundle beside it |\n\
         | `bin/nasbn` | the program |\n\
         | `{BUNDLE}/` | the supernet, as `nasbn-export build` wrote it |\n",
        description.triple, description.glibc
    );
    if let Some(version) = &description.onnxruntime {
        let _ = writeln!(
            page,
            "| `{PROVISIONED_DIR}/` | ONNX Runtime {version} for the CPU; `ORT_DYLIB_PATH` names another |"
        );
    } else {
        page.push_str("| – | no ONNX Runtime library: name one, 1.17 or newer, with `ORT_DYLIB_PATH` |\n");
    }
    page.push_str(
        "| `man/` | man pages, if they were packed: `man -M man nasbn` |\n\
         | `licences/` | of nasbn, ONNX Runtime and what they are made of |\n\
         | `SHA256SUMS` | `sha256sum -c SHA256SUMS` says whether all is whole |\n\n",
    );
}

fn first_commands(page: &mut String) {
    let _ = write!(
        page,
        "## First commands\n\n```\n\
         ./{RUN} doctor                                                  # what works here, and what makes timings swing\n\
         ./{RUN} adapt --data cifar10:DIR --epochs 20 --out checkpoint   # --data digits: images that are built in\n\
         ./{RUN} latency --out board.latency\n\
         ./{RUN} search --data cifar10:DIR --checkpoint checkpoint --latency board.latency --budget 8ms --out found\n\
         ```\n\n\
         `--bundle {BUNDLE}` is added where it is needed. `nasbn-targets deploy` puts a newer package in the place of this one and leaves\n\
         what you have put into it, in the directories above, too; only the files that `SHA256SUMS` names are replaced.\n\n",
    );
}

fn gpu(page: &mut String, catalog: &Catalog, device: &Device) {
    page.push_str("## The GPU\n\n");
    match &device.gpu {
        Some(gpu) => {
            let capability = gpu.compute_capability.replace('.', "");
            let _ = writeln!(
                page,
                "{} (sm_{capability}{}). The library in this package computes on the CPU alone; for the GPU:\n",
                gpu.architecture,
                if device.jetpacks.is_some() { "" } else { " and newer" }
            );
        }
        None => page.push_str("This profile knows of none.\n\n"),
    }
    for (library, versions) in catalog.gpu_libraries_of(device) {
        let jetpacks = if versions.is_empty() { String::new() } else { format!("JetPack {}: ", versions.join(", ")) };
        let unproven = library.unverified.as_ref().map(|what| format!(" (Not verified: {what}.)")).unwrap_or_default();
        let _ = writeln!(page, "* {jetpacks}{}{unproven}", library.text);
    }
    let mut unverified: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for alike in catalog.jetpacks_of(device).filter_map(|jetpack| jetpack.alike.as_ref()) {
        let versions = alike.releases.keys().map(String::as_str);
        alike.unverified.iter().for_each(|what| unverified.entry(what).or_default().extend(versions.clone()));
    }
    for (what, versions) in unverified {
        let _ = writeln!(page, "\nNot verified of JetPack {}: {what}.", versions.join(", "));
    }
    if catalog.gpu_libraries_of(device).iter().any(|(library, _)| library.origin != GpuOrigin::None) {
        let _ = writeln!(
            page,
            "\nThen `ORT_DYLIB_PATH=/path/to/libonnxruntime.so ./{RUN} doctor` says which of {} work. Provider libraries\n\
             (`libonnxruntime_providers_*.so`) belong beside that file.",
            catalog.providers(device).iter().map(Provider::to_string).collect::<Vec<_>>().join(", ")
        );
    }
    page.push('\n');
}

fn clocks(page: &mut String, device: &Device) {
    page.push_str("## Before measuring\n\n");
    match &device.power {
        Some(power) => {
            let _ = write!(
                page,
                "Power modes: {}. Best for measuring: `{}`. Their numbers differ between releases, so look first:\n\n```\n\
                 grep POWER_MODEL /etc/nvpmodel.conf     # the board's own list: ID=... NAME=...\n\
                 sudo nvpmodel -m ID                     # take one\n\
                 sudo jetson_clocks                      # and hold its clocks\n```\n\n",
                power.modes.join(", "),
                power.best
            );
            if let Some(what) = &power.unverified {
                let _ = write!(page, "(Not verified: {what}.)\n\n");
            }
        }
        None => page.push_str(
            "Hold the clocks where you can: `sudo cpupower frequency-set --governor performance`. Leave other work out.\n\n",
        ),
    }
    let power = &device.board.total_power;
    if !power.is_empty() {
        let _ = write!(page, "Energy is measured by {}.\n\n", power.join(" + "));
    }
}

fn memory(page: &mut String, device: &Device) {
    if let Some(memory) = &device.memory {
        let sizes: Vec<_> = memory.gigabytes.iter().map(ToString::to_string).collect();
        let _ = write!(
            page,
            "## Memory\n\n{} GB by variant, shared by processor and GPU. If it is short, say how much a run may take: `--max-memory 1GiB` of\n\
             `adapt`, `score` and `subnet`, `--memory-budget 1GiB` of `search`. It chooses what is kept, the batch and the open sessions, or\n\
             says the least that would do. A desktop takes much: `sudo systemctl isolate multi-user.target`.\n\n",
            sizes.join(" or ")
        );
    }
}

fn trouble(page: &mut String, catalog: &Catalog, device: &Device, description: &Description) {
    let _ = write!(
        page,
        "## If `doctor` complains\n\n\
         | it says | do |\n| --- | --- |\n\
         | no ONNX Runtime library found, or it does not load | `sha256sum -c SHA256SUMS`; `getconf GNU_LIBC_VERSION` must say {} or newer |\n\
         | it is older than 1.17 | name a newer one with `ORT_DYLIB_PATH`, or unset that |\n\
         | the library was built without a provider | see *The GPU* above; the CPU works without |\n",
        description.glibc
    );
    if catalog.providers(device).len() > 1 {
        // That of a family of devices is the least that a member has.
        let capability = device
            .gpu
            .as_ref()
            .filter(|_| device.jetpacks.is_some())
            .map_or_else(|| "your GPU".to_owned(), |gpu| format!("sm_{}", gpu.compute_capability.replace('.', "")));
        let _ = write!(
            page,
            "| a provider's library does not load | put CUDA, cuDNN and TensorRT on the loader's path (`LD_LIBRARY_PATH`, `ldconfig -p`) |\n\
             | a graph does not run on the GPU | the library has no code for it: one built for {capability} is needed |\n"
        );
    }
    let _ = write!(
        page,
        "| a power mode, clocks or temperatures | see *Before measuring* above |\n\
         | a file cannot be read | everything but that value works without; a user who may read it sees it |\n"
    );
}
