//! Inheritance: a variant's table laid over its base's, and that over the next. `define`, `let` and `scratch` merge by
//! name, other keys replace; a new kind of launch drops what belonged to the old one.
//! Leaves to others: whether the outcome works.

use kernel_spec::words;

use super::table::{DeclaredLaunch, VariantTable};
use super::{Function, Kind, Language, STANDARD, Variant};
use crate::key::BadKey;
use crate::ordered::Ordered;

/// A variant of a gate file with everything that it inherits.
pub fn resolve(name: &str, tables: &Ordered<VariantTable>) -> Result<Variant, BadKey> {
    let mut merged = VariantTable::default();
    for (link, table) in chain(name, tables)?.into_iter().rev() {
        kind_of(table).map_err(|why| BadKey::new(format!("variants.{link}"), why))?;
        merged = lay_over(merged, table);
    }
    finish(name, merged)
}

/// The variant, its base, that one's base, and so on.
pub fn chain<'a>(name: &str, tables: &'a Ordered<VariantTable>) -> Result<Vec<(&'a str, &'a VariantTable)>, BadKey> {
    let mut links: Vec<(&str, &VariantTable)> = Vec::new();
    let mut key = format!("variants.{name}");
    let mut next = name;
    loop {
        let Some((found, table)) = tables.iter().find(|(known, _)| *known == next) else {
            let shown = words::one_line(next);
            let near = words::suggestion(next, tables.keys());
            return BadKey::refuse(key, format!("there is no variant `{shown}`: {near}"));
        };
        if links.iter().any(|(link, _)| *link == found) {
            let circle = links.iter().map(|(link, _)| *link).chain([found]).collect::<Vec<_>>().join(" -> ");
            return BadKey::refuse(key, format!("inherits from itself: {circle}"));
        }
        links.push((found, table));
        let Some(base) = &table.base else { return Ok(links) };
        key = format!("variants.{found}.base");
        next = base;
    }
}

/// The key that says what is launched; they exclude one another.
fn kind_of(table: &VariantTable) -> Result<Option<&'static str>, String> {
    let kinds = [
        ("entry", table.entry.is_some()),
        ("launches", table.launches.is_some()),
        ("plan", table.plan.is_some()),
        ("triton", table.triton.is_some()),
        ("call", table.call.is_some()),
    ];
    let mut given = kinds.into_iter().filter_map(|(key, given)| given.then_some(key));
    match (given.next(), given.next()) {
        (Some(first), Some(second)) => Err(format!("`{first}` and `{second}` exclude each other: keep one")),
        (first, _) => Ok(first),
    }
}

fn lay_over(base: VariantTable, table: &VariantTable) -> VariantTable {
    let (old, new) = (kind_of(&base).ok().flatten(), kind_of(table).ok().flatten());
    let mut merged = if new.is_some() && new != old { without_launch(base) } else { base };
    for (name, value) in table.define.iter() {
        merged.define.set(name, value.clone());
    }
    for (name, value) in table.values.iter() {
        merged.values.set(name, value.clone());
    }
    for (name, scratch) in table.scratch.iter() {
        merged.scratch.set(name, scratch.clone());
    }
    let table = table.clone();
    VariantTable {
        base: None,
        toggles: table.toggles,
        source: table.source.or(merged.source),
        flags: table.flags.or(merged.flags),
        include: table.include.or(merged.include),
        entry: table.entry.or(merged.entry),
        launches: table.launches.or(merged.launches),
        plan: table.plan.or(merged.plan),
        triton: table.triton.or(merged.triton),
        call: table.call.or(merged.call),
        num_warps: table.num_warps.or(merged.num_warps),
        num_stages: table.num_stages.or(merged.num_stages),
        params: table.params.or(merged.params),
        grid: table.grid.or(merged.grid),
        block: table.block.or(merged.block),
        shared: table.shared.or(merged.shared),
        cluster: table.cluster.or(merged.cluster),
        cooperative: table.cooperative.or(merged.cooperative),
        pdl: table.pdl.or(merged.pdl),
        symbols: table.symbols.or(merged.symbols),
        define: merged.define,
        values: merged.values,
        scratch: merged.scratch,
    }
}

/// What is left where another kind of launch replaces this one.
fn without_launch(table: VariantTable) -> VariantTable {
    VariantTable {
        source: table.source,
        define: table.define,
        values: table.values,
        flags: table.flags,
        include: table.include,
        scratch: table.scratch,
        symbols: table.symbols,
        ..VariantTable::default()
    }
}

/// The keys of one launch that are given.
fn launch_keys(table: &VariantTable) -> Vec<&'static str> {
    let keys = [
        ("params", table.params.is_some()),
        ("grid", table.grid.is_some()),
        ("block", table.block.is_some()),
        ("shared", table.shared.is_some()),
        ("cluster", table.cluster.is_some()),
        ("cooperative", table.cooperative.is_some()),
        ("pdl", table.pdl.is_some()),
        ("num_warps", table.num_warps.is_some()),
        ("num_stages", table.num_stages.is_some()),
    ];
    keys.into_iter().filter_map(|(key, given)| given.then_some(key)).collect()
}

/// Holds each kind to the keys that it takes.
fn finish(name: &str, mut table: VariantTable) -> Result<Variant, BadKey> {
    let key = |part: &str| format!("variants.{name}.{part}");
    let missing = |part: &str, what: &str| BadKey::new(key(part), format!("is missing: {what}"));
    let kind = kind_of(&table).ok().flatten();
    let Some(kind) = kind else {
        return Err(missing("entry", "name the kernel, or give launches, plan, triton or call"));
    };
    let allowed: &[&str] = match kind {
        "entry" => &["params", "grid", "block", "shared", "cluster", "cooperative", "pdl"],
        "triton" => &["params", "grid", "num_warps", "num_stages"],
        _ => &[],
    };
    if let Some(extra) = launch_keys(&table).into_iter().find(|k| !allowed.contains(k)) {
        return BadKey::refuse(key(extra), format!("does not go with `{kind}`: {}", instead(kind)));
    }
    let source = table.source.take().ok_or_else(|| missing("source", "name the file that the kernel is in"))?;
    let function = table.triton.take();
    let function = function.map(|function| Function::of(function, &mut table, missing)).transpose()?;
    let kind = match (table.entry, table.launches, table.plan, function, table.call) {
        (Some(entry), ..) => Kind::Entry(DeclaredLaunch {
            entry,
            params: table.params.ok_or_else(|| missing("params", "list what the kernel takes, in order"))?,
            grid: table.grid.ok_or_else(|| missing("grid", "give the number of CTAs, one to three extents"))?,
            block: table.block.ok_or_else(|| missing("block", "give the threads of a CTA, one to three extents"))?,
            shared: table.shared,
            cluster: table.cluster,
            cooperative: table.cooperative.unwrap_or_default(),
            pdl: table.pdl.unwrap_or_default(),
        }),
        (_, Some(steps), ..) => Kind::Launches(steps),
        (_, _, Some(file), ..) => Kind::Plan { file, answer: None },
        (_, _, _, Some(function), _) => Kind::Triton(Box::new(function)),
        (.., function) => Kind::Call(function.unwrap_or_default()),
    };
    let is_cuda = !matches!(kind, Kind::Triton(_) | Kind::Call(_)) && Language::of_source(&source).is_cuda();
    let standard = || if is_cuda { vec![STANDARD.to_owned()] } else { Vec::new() };
    Ok(Variant {
        name: name.to_owned(),
        source,
        define: table.define,
        values: table.values,
        flags: table.flags.unwrap_or_else(standard),
        include: table.include.unwrap_or_default(),
        kind,
        scratch: table.scratch,
        symbols: table.symbols.unwrap_or_default(),
    })
}

fn instead(kind: &str) -> &'static str {
    match kind {
        "entry" => "it is for `triton`",
        "triton" => "num_warps and the compiler decide it",
        "launches" => "give it within each launch",
        "plan" => "the plan answers with it",
        _ => "the function does its own launches",
    }
}
