//! What a snapshot says in words, for joulectl and the page: names, quantities, domains, sources, platform meters.
//! Pure: snapshot in, text out. Not tables or HTML, which are their readers'.

pub mod billing;
pub mod entity;
pub mod meters;
pub mod platform;
pub mod quantity;
pub mod sources;
