use anyhow::bail;

pub(crate) fn run(_check: bool) -> anyhow::Result<()> {
    bail!("there is no BPF program yet")
}
