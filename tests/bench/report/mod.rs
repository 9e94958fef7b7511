//! docs/benchmarks.md and its plots: the results in words. Made from the JSON alone.

mod cases;
mod figures;
mod flood;
mod goals;
mod plot;
mod rows;
mod tls;

use crate::results::{Results, Topology};
use anyhow::Context;
use rustix::process::geteuid;
use snproxy_pages::table::Table;
use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::{MetadataExt, chown},
    path::Path,
};

/// How it was measured, for who reads the figures.
const METHOD: &str = "\
Each contestant has hosts of its own: network namespaces, with the client on the first host and the pod on the last. On one host the \
client speaks to one proxy, which speaks to the pod; across two hosts there is a proxy on each, and the connection goes through both. \
*direct* is the client speaking to the pod without any proxy.

The contestants of a case take turns: in each round all of them are measured within seconds, in another order each time. A ratio is \
taken within a round, where the machine was the same for both, and what is shown is the median of the ratios with the least and the \
greatest. HAProxy runs plain and with `option splice-auto`, with a thread per processor and its defaults otherwise; *HAProxy's best* is the \
better of the two in that case. *haproxy-64k* is the plain one with `tune.bufsize 65536`: its users can have that at the price of memory, so it \
stands beside. nginx has a worker per processor, `reuseport` and buffers of 256 KiB, its best. All sockets use one congestion control. Client and pod compare every byte they get; one wrong byte ends the benchmark.

Client, proxies and pod share the processors of one machine, so a proxy that takes less processor time leaves more to the others: the \
ratios say how a proxy does on a busy host, and the processor time per operation says what it costs by itself.";

/// Which set of rows and plots belong to a number of hosts.
const TOPOLOGIES: [(Topology, &str, &str); 2] = [
    (Topology::OneHost, "One host", "one-host"),
    (Topology::TwoHosts, "Two hosts", "two-hosts"),
];

/// Writes the report of `results`, which lie at `json`: beside them `NAME.md`, and the plots in the folder `NAME`.
pub(crate) fn write(results: &Results, json: &Path) -> anyhow::Result<()> {
    let folder = json.with_extension("");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let name = folder.file_name().context("results have a name")?;
    let name = name.to_string_lossy();
    let mut files: Vec<_> = plots(results)?
        .into_iter()
        .map(|(plot, svg)| (folder.join(format!("{plot}.svg")), svg))
        .collect();
    files.push((json.with_extension("md"), page(results, &name)));
    for (file, text) in &files {
        fs::write(file, text).with_context(|| file.display().to_string())?;
    }
    let mut written: Vec<_> = files.iter().map(|(file, _)| &**file).collect();
    written.extend([&*folder, json]);
    give_back(&written, json)
}

/// Measuring takes root; what it leaves belongs to whose folder it is in.
fn give_back(files: &[&Path], json: &Path) -> anyhow::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let folder = json.canonicalize()?;
    let owner = fs::metadata(folder.parent().context("results lie in a folder")?)?;
    for file in files {
        chown(file, Some(owner.uid()), Some(owner.gid()))
            .with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// All plots that there are figures for, by name.
fn plots(results: &Results) -> anyhow::Result<Vec<(&'static str, String)>> {
    let mut plots = Vec::new();
    for (topology, title, name) in TOPOLOGIES {
        let cases = cases::of(results, topology);
        if !cases.is_empty() {
            plots.push((name, plot::ratios(title, &cases)?));
        }
    }
    if !results.ports.is_empty() {
        plots.push(("ports", plot::ports(&results.ports)?));
    }
    Ok(plots)
}

/// The whole page; plots are linked in the folder `name`.
fn page(results: &Results, name: &str) -> String {
    let mut page = String::new();
    let mut section = |title: &str, text: &str| {
        if !text.is_empty() {
            let _ = write!(page, "{title}\n\n{}\n\n", text.trim_end());
        }
    };
    section("# Benchmarks", &head(results, name));
    section("## Goals", &goals::text(results));
    section("## How it is measured", METHOD);
    for (topology, title, plot) in TOPOLOGIES {
        let cases = cases::of(results, topology);
        if !cases.is_empty() {
            let text = format!(
                "![Throughput of each contestant as a share of direct]({name}/{plot}.svg)\n\n{}",
                cases::text(&cases)
            );
            section(&format!("## {title}"), &text);
        }
    }
    if !results.ports.is_empty() {
        let text = format!(
            "![Ready time and memory over the number of ports]({name}/ports.svg)\n\n{}",
            rows::ports(&results.ports)
        );
        section("## Many ports", &text);
    }
    if let Some(flood) = &results.flood {
        section("## Flood", &flood::text(flood));
    }
    if let Some(tls) = &results.tls {
        section("## TLS and ambassadors", &tls::text(tls));
    }
    section("## Memory", &rows::memory(results));
    page.trim_end().to_owned() + "\n"
}

fn head(results: &Results, name: &str) -> String {
    let Results {
        machine, versions, ..
    } = results;
    let mut text = format!(
        "snproxy beside HAProxy, nginx (stream) and a direct connection. Made by `cargo xtask bench` from [{name}.json]({name}.json); \
         `cargo xtask bench --report` makes this page and its plots anew without measuring.\n\n"
    );
    if results.quick {
        text.push_str("**Made by `--quick`: few and short rounds. The figures are rough.**\n\n");
    }
    let sysctls = machine.sysctls.iter();
    let sysctls: Vec<_> = sysctls
        .map(|(key, value)| format!("`{key} = {value}`"))
        .collect();
    let mut table = Table::new(["", ""]);
    let rows = [
        ("date", results.date.clone()),
        (
            "machine",
            format!(
                "{} × {}, {} MiB of memory",
                machine.cpus, machine.cpu, machine.memory_mib
            ),
        ),
        ("kernel", format!("Linux {}", machine.kernel)),
        ("snproxy", versions.snproxy.clone()),
        ("HAProxy", versions.haproxy.clone()),
        ("nginx", versions.nginx.clone()),
        ("congestion control", machine.congestion_control.clone()),
        ("in all namespaces", sysctls.join(", ")),
    ];
    for (what, value) in rows {
        table.row([what.to_owned(), value]);
    }
    text + &table.to_string()
}

#[cfg(test)]
mod tests;
