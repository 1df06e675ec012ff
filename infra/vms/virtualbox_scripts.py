"""What a host of VirtualBox does for a VM, as scripts for ``sh``: each completes what a killed run left.

Manual: https://www.virtualbox.org/manual/topics/vboxmanage.html.
"""

from __future__ import annotations

from infra.vms.vboxmanage import NOT_THERE, SHELL
from infra.vms.virtualbox_units import SERVER

CONTROLLER = "sata"
START_S = 60
_OSTYPE = "Ubuntu_64"

REGISTER = f"""\
{SHELL}
set -e
if vbox showvminfo "$1" >/dev/null 2>&1; then exit 0; fi
if [ -e "$2/$1/$1.vbox" ]; then vbox registervm "$2/$1/$1.vbox"; exit; fi
vbox createvm --name "$1" --ostype {_OSTYPE} --basefolder "$2" --register
"""

# A medium of a folder of the VM's own stays: with snapshots it is one of theirs, above our disk.
ATTACH = f"""\
{SHELL}
set -e
info=$(vbox showvminfo "$1" --machinereadable) || {{ echo "$info" >&2; exit 1; }}
echo "$info" | grep -q '^storagecontrollername[0-9]*="{CONTROLLER}"$' ||
    vbox storagectl "$1" --name {CONTROLLER} --add sata --controller IntelAhci --portcount 2 --bootable on
echo "$info" | grep -qF -e '"{CONTROLLER}-0-0"="'"$2"'"' -e '"{CONTROLLER}-0-0"="'"$(dirname "$2")/Snapshots/" ||
    vbox storageattach "$1" --storagectl {CONTROLLER} --port 0 --device 0 --type hdd --medium "$2"
vbox storageattach "$1" --storagectl {CONTROLLER} --port 1 --device 0 --type dvddrive --medium "$3"
"""

GROW = f"""\
{SHELL}
set -e
if vbox showvminfo "$1" --machinereadable | grep -q '^CurrentSnapshotName='; then
    echo "a disk with snapshots cannot be made larger: delete those of \\`VBoxManage snapshot $1 list\\`" >&2
    exit 1
fi
vbox modifymedium disk "$2" --resizebyte "$3"
"""

START = f"""\
{SHELL}
if [ ! -c /dev/vboxdrv ]; then
    echo "VirtualBox's kernel module is not loaded: install the kernel's headers and run \\`/sbin/vboxconfig\\`" \\
        "(Debian: virtualbox-dkms); under Secure Boot the module has to be signed" >&2
    exit 1
fi
is_off "$1" || exit 0
systemctl reset-failed "$2" {SERVER} 2>/dev/null
systemctl start "$2" || {{ journalctl -u {SERVER} -u "$2" -n 10 -o cat --no-pager >&2; exit 1; }}
for second in $(seq {START_S}); do
    [ "$(state "$1")" != running ] || exit 0
    sleep 1
done
# Or its unit would try again and again, and at times look as if it ran.
systemctl stop "$2"
said=$(journalctl -u "$2" -n 20 -o cat --no-pager)
echo "$said" >&2
case "$said" in *VERR_VMX_IN_VMX_ROOT_MODE* | *VERR_SVM_IN_USE*)
    echo "KVM holds the processor: \\`modprobe -r kvm_intel kvm_amd\\`, and set kvm.enable_virt_at_load=0" >&2
esac
exit 1
"""

# Media that somebody has attached to the VM are theirs: unregistervm without --delete leaves all files alone.
DESTROY = f"""\
{SHELL}
folder="$2/$1"
info=$(vbox showvminfo "$1" --machinereadable 2>&1)
case "$info" in
*'CfgFile="'"$folder/$1.vbox"'"'*)
    is_off "$1" || vbox controlvm "$1" poweroff
    systemctl disable --now "$3" 2>/dev/null
    # Its process goes some moments after it is off.
    for second in $(seq 20); do
        vbox unregistervm "$1" && break
        [ "$second" != 20 ] || exit 1
        sleep 1
    done
    ;;
*{NOT_THERE}*) systemctl disable --now "$3" 2>/dev/null ;;
*CfgFile=*) echo "the VM $1 of this host is another one: it stays as it is" >&2; exit 1 ;;
*) echo "$info" >&2; exit 1 ;;
esac
vbox closemedium dvd "$folder/seed.iso" >/dev/null 2>&1
rm -rf "$folder/Logs"
for name in disk.vdi disk.vdi.new disk.vdi.layer "$1.vbox" "$1.vbox-prev" "$1.vbox-tmp" "$1.nvram" \\
    seed.iso seed.iso.new meta-data meta-data.mlops-new; do
    rm -f "$folder/$name"
done
[ ! -e "$folder" ] || rmdir "$folder" 2>/dev/null || echo "left in $folder, as it is not ours: $(ls "$folder" | xargs)"
"""
