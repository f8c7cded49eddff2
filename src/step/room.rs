//! Whether what makes room can be known before it is done.

use crate::host::Host;

/// Whether what is to go for space can only be foretold. Nobody knows what a deletion frees before it is carried out.
pub fn is_foretold(host: &dyn Host) -> bool {
    // Stays: a dry host would have to free what it does not know, and a loop that deletes until there is enough would
    // name all that may go as what does.
    host.is_dry()
}
