//! The table at the end.

use std::fmt;

/// What happened to each resource.
#[derive(Debug, Default)]
pub(super) struct Table(pub(super) Vec<Row>);

/// One resource.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) resource: &'static str,
    pub(super) lifetime: String,
    /// How often the operator was restarted while the resource was there.
    pub(super) restarts: usize,
    /// How often its token reached its end.
    pub(super) expiries: usize,
    /// How many requests that is.
    pub(super) expected: usize,
    /// How many came to the issuer.
    pub(super) counted: usize,
}

// === impl Table ===

impl Table {
    /// Whether every count is the expected one.
    pub(super) fn is_right(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|row| row.expected == row.counted)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<8}  {:<14}  {:>8}  {:>8}  {:>15}  {:>22}",
            "RESOURCE", "TOKEN LIFETIME", "RESTARTS", "EXPIRIES", "TOKENS EXPECTED", "REQUESTS AT THE ISSUER"
        )?;
        for row in &self.0 {
            let Row { resource, lifetime, restarts, expiries, expected, counted } = row;
            let mark = if expected == counted { "" } else { "  WRONG" };
            writeln!(
                f,
                "{resource:<8}  {lifetime:<14}  {restarts:>8}  {expiries:>8}  {expected:>15}  {counted:>22}{mark}"
            )?;
        }
        Ok(())
    }
}
