# Has btrbk's own schedule decide about calendars, one a line on standard input:
#
#   NOW MIN DOW HOD H D W M Y TIME…     (seconds since 1970; MIN: no, latest, all, 2d; H … Y: a number, all, or 0)
#
# Answers with a line for each: OFFSET_OF_NOW, then for each time, oldest first, OFFSET=REASON with the reason that btrbk
# gave last, or nothing. The zone is that of TZ. The script is read up to where it would begin to work.
use strict;
use warnings;

open(my $file, '<', '/usr/bin/btrbk') or die "btrbk is not installed: $!";
my $script = do { local $/; <$file> };
$script =~ s/^MAIN:\n.*//ms or die "this btrbk has no MAIN";
my $driver = <<'DRIVER';
sub offset { my $t = shift; my @l = localtime($t); return timegm_nocheck(@l[0..5]) - $t; }
while (my $line = <STDIN>) {
  my ($now, $min, $dow, $hod, $h, $d, $w, $m, $y, @times) = split(' ', $line);
  @tm_now = localtime($now);
  my %preserve = (dow => $dow, hod => $hod, h => $h, d => $d, w => $w, m => $m, y => $y);
  if ($min eq 'all' || $min eq 'latest') { $preserve{min_q} = $min; $preserve{min} = $min; }
  elsif ($min =~ /^([0-9]+)([hdwmy])$/) { $preserve{min_n} = $1; $preserve{min_q} = $2; $preserve{min} = $min; }
  my @schedule = map { { value => $_, name => $_, btrbk_date => [ $_, 0, 1 ] } } @times;
  schedule(schedule => \@schedule, preserve => \%preserve, preserve_date_in_future => 1);
  my %why = map { $_->{value} => $_->{preserve} } @schedule;
  my @said = map { my $why = $why{$_} // ''; $why =~ tr/ /_/; offset($_) . '=' . $why } @times;
  print join(' ', offset($now), @said), "\n";
}
DRIVER
eval "$script\n$driver\n1;" or die $@;
