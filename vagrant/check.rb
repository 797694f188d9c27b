# frozen_string_literal: true

# Checks that mistakes in lab.yaml are found and reported. Run by check.sh.

require "tmpdir"
require_relative "lab"

file = File.join(__dir__, "lab.yaml")
good = YAML.safe_load(File.read(file))
failures = []

lab = Lab.load(file)
names = lab.machines.map(&:name)
failures << "machines are #{names}" unless names == %w[master-1 master-2 master-3 node-1 node-2]
failures << "addresses are #{lab.machines.map(&:address)}" unless lab.machines.map(&:address) == %w[192.168.56.11 192.168.56.12 192.168.56.13 192.168.56.101 192.168.56.102]
failures << "the virtual IP is #{lab.virtual_ip}" unless lab.virtual_ip == "192.168.56.10"
failures << "the netmask is #{lab.netmask}" unless lab.netmask == "255.255.255.0"
hosts = lab.inventory["all"]["children"].transform_values { |g| g["hosts"].keys }
failures << "the inventory has #{hosts}" unless hosts == { "masters" => names.first(3), "nodes" => names.last(2) }

# Changes of lab.yaml, and parts of the error that each must cause.
{
  { "boks" => "x" } => "boks: unknown key",
  { "box" => nil } => "box: must be a name",
  { "box_version" => 12 } => "box_version: must be a version in quotes",
  { "masters" => { "count" => 2, "cpus" => 1, "memory" => 1024 } } => "masters.count: 2 is not 1, 3 or 5",
  { "masters" => { "count" => 3, "cpus" => 1 } } => "masters.memory: is missing",
  { "nodes" => { "count" => "two", "cpus" => 0, "memory" => 64 } } => ["nodes.count", "nodes.cpus: 0", "nodes.memory: 64"],
  { "nodes" => 3 } => "nodes: must have count",
  { "network" => "192.168.0.0/24" } => "not within 192.168.56.0/21",
  { "network" => "192.168.56.0/25" } => "must be a /24",
  { "network" => "192.168.56.1/24" } => "has host bits; write 192.168.56.0/24",
  { "cluster_cidr" => "10.300.0.0/16" } => "cluster_cidr: \"10.300.0.0/16\" is not an IPv4 prefix",
  { "cluster_cidr" => "10.96.0.0/12" } => "service_cidr: 10.96.0.0/16 overlaps cluster_cidr, 10.96.0.0/12",
  { "access" => { "private" => { "open" => true, "allow" => [] } } } => "access.public: is missing",
  { "access" => { "private" => { "open" => false, "allow" => [] }, "public" => { "open" => "no", "allow" => ["10.0.0.0/8"] * 41 } } } =>
    ["access.public.open: \"no\" is neither", "has 41 prefixes, more than 40", "10.0.0.0/8 and 10.0.0.0/8 overlap"],
  { "access" => { "private" => { "open" => true, "allow" => ["10.1.0.0/8"] }, "public" => { "open" => true, "allow" => [] } } } =>
    "access.private.allow: 10.1.0.0/8 has host bits; write 10.0.0.0/8",
  { "access" => { "private" => { "open" => true, "allow" => ["10.0.0.0/8"] }, "public" => { "open" => true, "allow" => [] } } } => "does not contain the machines' network",
  { "access" => { "private" => { "open" => false, "allow" => [] }, "public" => { "open" => false, "allow" => [] } } } => "one of private and public must be open",
  { "programs" => 1 } => "programs: must be a directory",
}.each do |change, wanted|
  Lab.new(good.merge(change), "lab.yaml")
  failures << "#{change} was taken"
rescue Lab::Invalid => e
  Array(wanted).each { |w| failures << "#{change}: #{e.message.inspect} does not say #{w.inspect}" unless e.message.include?(w) }
end

Dir.mktmpdir do |dir|
  broken = File.join(dir, "lab.yaml")
  File.write(broken, "box: [\n")
  Lab.load(broken)
  failures << "a broken file was taken"
rescue Lab::Invalid => e
  failures << "#{e.message.inspect} does not name the line" unless e.message.match?(/lab.yaml:\d+: /)
end

abort(failures.join("\n")) unless failures.empty?
