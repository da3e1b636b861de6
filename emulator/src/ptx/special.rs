//! The names of special registers (PTX ISA 10).

/// Special registers with components x, y, z and w.
const VECTORS: &[&str] =
    &["%tid", "%ntid", "%ctaid", "%nctaid", "%clusterid", "%nclusterid", "%cluster_ctaid", "%cluster_nctaid"];

const SCALARS: &[&str] = &[
    "%laneid",
    "%warpid",
    "%nwarpid",
    "%smid",
    "%nsmid",
    "%gridid",
    "%is_explicit_cluster",
    "%cluster_ctarank",
    "%cluster_nctarank",
    "%lanemask_eq",
    "%lanemask_le",
    "%lanemask_lt",
    "%lanemask_ge",
    "%lanemask_gt",
    "%clock",
    "%clock_hi",
    "%clock64",
    "%globaltimer",
    "%globaltimer_lo",
    "%globaltimer_hi",
    "%reserved_smem_offset_begin",
    "%reserved_smem_offset_end",
    "%reserved_smem_offset_cap",
    "%reserved_smem_offset_0",
    "%reserved_smem_offset_1",
    "%total_smem_size",
    "%aggr_smem_size",
    "%dynamic_smem_size",
    "%current_graph_exec",
];

/// Whether a name is a special register with components.
pub(super) fn is_vector(name: &str) -> bool {
    VECTORS.contains(&name)
}

/// Whether a name is a special register.
pub(super) fn is_special(name: &str) -> bool {
    is_vector(name) || SCALARS.contains(&name) || numbered(name)
}

/// `%envreg0` to `%envreg31`, `%pm0` to `%pm7`, `%pm0_64` to `%pm7_64`.
fn numbered(name: &str) -> bool {
    let below = |digits: &str, count: u32| {
        let canonical = digits == "0" || !digits.starts_with(['0', '+']);
        canonical && digits.parse::<u32>().is_ok_and(|number| number < count)
    };
    if let Some(digits) = name.strip_prefix("%envreg") {
        return below(digits, 32);
    }
    match name.strip_prefix("%pm") {
        Some(rest) => below(rest.strip_suffix("_64").unwrap_or(rest), 8),
        None => false,
    }
}

/// The index of a component: `.x` and `.r` are 0, `.w` and `.a` are 3.
pub(super) fn component(dotted: &str) -> Option<u32> {
    Some(match dotted {
        ".x" | ".r" => 0,
        ".y" | ".g" => 1,
        ".z" | ".b" => 2,
        ".w" | ".a" => 3,
        _ => return None,
    })
}
