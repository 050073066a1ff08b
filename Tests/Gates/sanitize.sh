#!/bin/sh
# The unit, hostile and scenario suites in a build that reports races, or bad accesses to memory.
#   sanitize.sh thread|address [FILTER]    FILTER: a regular expression of tests, as swift test takes it
# Each has a build of its own below .build: some 15 minutes the first time on two processors, and the tests are 5 to 15 times
# slower. Exits with 1 if a test fails, or if anything is reported.
set -eu
cd "$(dirname "$0")/../.."
kind=${1:-}
filter=${2:-}
case $kind in
# The standard library's mutex is invisible to ThreadSanitizer: see Sources/Linux/Mutex.swift.
thread) flags='-Xswiftc -DTHREAD_SANITIZER' ;;
# Leaks are not looked for: what lives as long as the process is never freed. Signals that the program handles are its own.
address) flags= ;;
*)
  echo "usage: Tests/Gates/sanitize.sh thread|address [FILTER]" >&2
  exit 64
  ;;
esac
build=$PWD/.build/sanitize-$kind
mkdir -p "$build"
rm -f "$build"/report.*
export TSAN_OPTIONS="log_path=$build/report exitcode=0 halt_on_error=0 second_deadlock_stack=1 suppressions=$PWD/Tests/Gates/sanitize-thread.txt"
export ASAN_OPTIONS="log_path=$build/report detect_leaks=0 handle_sigbus=0 allow_user_segv_handler=1 detect_stack_use_after_return=0"
status=0
# shellcheck disable=SC2086  # a list of flags
swift build --build-tests --sanitize "$kind" --scratch-path "$build" $flags
# shellcheck disable=SC2086
swift test --skip-build --no-parallel --sanitize "$kind" --scratch-path "$build" $flags \
  --skip 'MachineTests\.' --skip 'TidyTests\.' ${filter:+--filter "$filter"} || status=1
reports=$(cat "$build"/report.* 2> /dev/null | grep -cE '^(WARNING: ThreadSanitizer|==[0-9]+==ERROR: AddressSanitizer)' || true)
if [ "$reports" != 0 ]; then
  status=1
  cat "$build"/report.* | grep -E '^(WARNING|SUMMARY|==[0-9]+==ERROR)' | sort | uniq -c | sort -rn | head -20
fi
echo "sanitize: $kind: $reports reports, tests $([ $status = 0 ] && echo passed || echo 'failed, or something was reported'); reports are in $build/report.*"
exit $status
