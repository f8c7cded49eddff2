#!/bin/bash
T=/tmp/wt/guest/target/test-tools;V=$(ls $T/kernel/lib/modules); export PATH=$PATH:$T/vng/bin
exec vng -r $T/kernel/boot/vmlinuz-$V --disable-kvm --cpus 2 --memory 3G --user root --force-9p -- "$1" </dev/null 2>&1 | cat
