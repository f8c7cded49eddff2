# What btrfs-backup-ng itself would keep, for btrfs_backup_ng_keep.rs: reads a line of JSON with a configuration's path,
# a moment and the moments of copies, and answers with the reasons for those that stay in the target and at the source.
import json
import logging
import sys
from datetime import datetime

from btrfs_backup_ng import retention
from btrfs_backup_ng.config.loader import load_config

reasons = {}


class Heard(logging.Handler):
    def emit(self, record):
        if record.msg == "  %s: %s%s" and record.args[0] == "KEEP":
            reasons[record.args[1]] = record.args[2]
        elif record.msg.startswith("Retention (count)"):
            reasons["count"] = ""


logger = retention.logger
logger.setLevel(logging.DEBUG)
logger.addHandler(Heard())
logger.propagate = False


def kept(policy, now, times):
    named = {datetime.fromtimestamp(at).strftime("home-%Y%m%d-%H%M%S"): at for at in times}
    reasons.clear()
    keep, _ = retention.apply_retention(
        list(named), policy, prefix="home-", now=datetime.fromtimestamp(now)
    )
    return {named[name]: reasons.get(name, "").strip(" ()") for name in keep}


for line in sys.stdin:
    asked = json.loads(line)
    config, _ = load_config(asked["config"])
    volume = config.volumes[0]
    policies = [config.get_target_retention(volume, volume.targets[0]), config.get_source_retention(volume)]
    print(json.dumps([kept(policy, asked["now"], asked["times"]) for policy in policies]), flush=True)
