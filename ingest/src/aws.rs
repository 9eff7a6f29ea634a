//! What AWS's operations do, where a record does not say it.

use std::collections::HashMap;
use std::sync::LazyLock;

/// Operations whose names mislead, and whether they only read; `scripts/aws-access-levels` makes the list.
static MISLEADING: LazyLock<HashMap<&str, bool>> = LazyLock::new(|| {
    let lines = include_str!("aws/access_levels.txt").lines();
    let reads = |line: &'static str| {
        let reads = line.strip_prefix('+').map(|operation| (operation, true));
        reads.or_else(|| Some((line.strip_prefix('-')?, false)))
    };
    lines.filter_map(reads).collect()
});

/// Whether an operation (`service:Operation`) only reads, by the access level that AWS documents for it. What is not
/// documented goes by the beginnings of names that AWS gives to operations which only look.
pub(crate) fn only_reads(operation: &str) -> bool {
    let known = MISLEADING.get(operation).copied();
    known.unwrap_or_else(|| only_looks(operation.rsplit_once(':').map_or(operation, |(_, name)| name)))
}

/// Whether an operation has a name that AWS gives to those that only look.
fn only_looks(name: &str) -> bool {
    const LOOKS: [&str; 9] = ["Get", "List", "Describe", "Head", "BatchGet", "Lookup", "Filter", "Query", "Scan"];
    let looks = |prefix| {
        name.strip_prefix(prefix)
            .is_some_and(|noun| noun.is_empty() || noun.starts_with(|c: char| c.is_ascii_uppercase()))
    };
    LOOKS.into_iter().any(looks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_misleads_is_known_and_all_else_goes_by_its_name() {
        let read =
            ["ec2:DescribeInstances", "s3:HeadObject", "kms:Decrypt", "ec2:SearchTransitGatewayRoutes", "new:GetIt"];
        let not = ["ec2:RunInstances", "redshift:GetClusterCredentials", "sts:AssumeRole", "new:Getaway", "new:MakeIt"];
        assert_eq!(read.map(only_reads), [true, true, false, true, true]);
        assert_eq!(not.map(only_reads), [false; 5]);
        assert!(MISLEADING.len() > 400);
    }
}
