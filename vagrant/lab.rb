# frozen_string_literal: true

require "fileutils"
require "ipaddr"
require "socket"
require "yaml"

# Lab is the cluster that lab.yaml describes: its machines, their addresses, and the variables for Ansible.
# All mistakes in the file are reported together, before any machine starts.
class Lab
  # Invalid says what is wrong with the file.
  class Invalid < StandardError; end

  # Machine is one virtual machine.
  Machine = Struct.new(:name, :group, :address, :cpus, :memory, keyword_init: true)

  KEYS = %w[box box_version masters nodes network cluster_cidr service_cidr access programs].freeze
  MACHINE_KEYS = %w[count cpus memory].freeze
  ACCESS_KEYS = %w[open allow].freeze
  # The maximum number of prefixes in one list of a gateway.
  MAX_PREFIXES = 40
  # The range that VirtualBox allows for host-only networks by default.
  VIRTUALBOX_RANGE = IPAddr.new("192.168.56.0/21")
  PROGRAMS = %w[xebec xebecd xebec-agent].freeze

  attr_reader :box, :box_version, :cluster_cidr, :service_cidr, :programs

  def self.load(path)
    new(YAML.safe_load(File.read(path)), path)
  rescue Psych::SyntaxError => e
    raise Invalid, "#{path}:#{e.line}: #{e.problem} #{e.context}"
  rescue Errno::ENOENT
    raise Invalid, "#{path} does not exist"
  end

  def initialize(settings, path)
    @settings = settings
    @problems = []
    check
    raise Invalid, "#{path} is not valid:\n#{@problems.map { |p| "  #{p}" }.join("\n")}" unless @problems.empty?

    @box, @box_version = settings.values_at("box", "box_version")
    @cluster_cidr, @service_cidr = settings.values_at("cluster_cidr", "service_cidr")
    @programs = File.expand_path(settings["programs"], File.dirname(path))
  end

  def machines
    { "masters" => 11, "nodes" => 101 }.flat_map do |group, first|
      of = @settings[group]
      (0...of["count"]).map do |i|
        Machine.new(name: "#{group.chomp("s")}-#{i + 1}", group: group, address: address(first + i), cpus: of["cpus"], memory: of["memory"])
      end
    end
  end

  def virtual_ip
    address(10)
  end

  def netmask
    IPAddr.new(@settings["network"]).inspect[%r{/([0-9.]+)>}, 1]
  end

  # The inventory for Ansible, which connects to the machines on the private network with the default key of boxes.
  def inventory
    groups = machines.group_by(&:group).transform_values do |of|
      { "hosts" => of.to_h { |m| [m.name, { "ansible_host" => m.address }] } }
    end
    { "all" => { "vars" => variables, "children" => groups } }
  end

  # Writes the inventory into a directory, which it makes, and returns its path.
  def write_inventory(dir)
    FileUtils.mkdir_p(dir)
    path = File.join(dir, "inventory.yml")
    File.write(path, YAML.dump(inventory))
    path
  end

  # The programs are checked only when machines start: `vagrant status` and `destroy` do not need them.
  def check_programs
    absent = PROGRAMS.reject { |p| File.executable?(File.join(programs, p)) }
    raise Invalid, "#{programs} lacks #{absent.join(", ")}: run `make build` first, or set programs in lab.yaml" unless absent.empty?
  end

  private

  # Values that differ from the defaults of the roles.
  def variables
    {
      "ansible_user" => "vagrant",
      "ansible_ssh_private_key_file" => File.join(ENV.fetch("VAGRANT_HOME", "~/.vagrant.d"), "insecure_private_key"),
      # Machines are created again with the same addresses.
      "ansible_ssh_common_args" => "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
      "xebec_cluster" => "vagrant",
      "xebec_vip" => virtual_ip,
      "xebec_cluster_cidr" => cluster_cidr,
      "xebec_service_cidr" => service_cidr,
      "xebec_access" => %w[private public].to_h { |k| [k, { "closed" => !@settings["access"][k]["open"], "allow" => @settings["access"][k]["allow"] }] },
      "xebec_bin_dir" => programs,
      "xebec_user_context" => true,
    }
  end

  def address(last)
    IPAddr.new(IPAddr.new(@settings["network"]).to_i + last, Socket::AF_INET).to_s
  end

  def problem(text)
    @problems << text
  end

  def check
    return problem("it has no settings") unless @settings.is_a?(Hash)

    check_keys("", @settings, KEYS)
    problem("box: must be a name such as debian/bookworm64") unless @settings["box"].is_a?(String) && !@settings["box"].empty?
    problem("box_version: must be a version in quotes, or \"\"") unless @settings["box_version"].is_a?(String)
    problem("programs: must be a directory") unless @settings["programs"].is_a?(String)
    check_machines("masters", [1, 3, 5], "1, 3 or 5: an even number of etcd members tolerates no more failures than one less")
    check_machines("nodes", (0..50).to_a, "a number from 0 to 50")
    check_networks
    check_access
  end

  def check_keys(prefix, given, known)
    (given.keys - known).each { |k| problem("#{prefix}#{k}: unknown key; the keys are #{known.join(", ")}") }
    (known - given.keys).each { |k| problem("#{prefix}#{k}: is missing") }
  end

  def check_machines(group, counts, allowed)
    of = @settings[group]
    return problem("#{group}: must have #{MACHINE_KEYS.join(", ")}") unless of.is_a?(Hash)

    check_keys("#{group}.", of, MACHINE_KEYS)
    problem("#{group}.count: #{of["count"].inspect} is not #{allowed}") unless counts.include?(of["count"])
    problem("#{group}.cpus: #{of["cpus"].inspect} is not a number from 1 to 32") unless of["cpus"].is_a?(Integer) && of["cpus"].between?(1, 32)
    problem("#{group}.memory: #{of["memory"].inspect} is not a number of MiB from 512 on") unless of["memory"].is_a?(Integer) && of["memory"] >= 512
  end

  def check_networks
    networks = %w[network cluster_cidr service_cidr].to_h { |k| [k, parse(k)] }.compact
    networks.to_a.combination(2) do |(a, one), (b, two)|
      problem("#{b}: #{@settings[b]} overlaps #{a}, #{@settings[a]}") if one.include?(two) || two.include?(one)
    end
    network = networks["network"]
    problem("network: #{@settings["network"]} must be a /24") if network && network.prefix != 24
    return if network.nil? || VIRTUALBOX_RANGE.include?(network)

    problem("network: #{@settings["network"]} is not within #{VIRTUALBOX_RANGE}/21, which is what VirtualBox allows")
  end

  def check_access
    access = @settings["access"]
    return problem("access: must have private and public") unless access.is_a?(Hash)

    check_keys("access.", access, %w[private public])
    lists = %w[private public].to_h { |k| [k, check_endpoint(k, access[k])] }.compact
    problem("access: one of private and public must be open") if lists.size == 2 && access.values.none? { |e| e["open"] }
    network = parse("network")
    return if network.nil? || !lists["private"] || lists["private"].empty? || lists["private"].any? { |p| p.include?(network) }

    problem("access.private.allow: does not contain the machines' network, #{@settings["network"]}: the nodes could not join")
  end

  # Returns the prefixes that an endpoint admits, nil when something is wrong with them.
  def check_endpoint(name, of)
    return problem("access.#{name}: must have #{ACCESS_KEYS.join(" and ")}") && nil unless of.is_a?(Hash)

    check_keys("access.#{name}.", of, ACCESS_KEYS)
    problem("access.#{name}.open: #{of["open"].inspect} is neither true nor false") unless [true, false].include?(of["open"])
    allow = of["allow"]
    return problem("access.#{name}.allow: must be a list of prefixes, [] for everywhere") && nil unless allow.is_a?(Array)

    problem("access.#{name}.allow: must be [] where it is not open") if of["open"] == false && !allow.empty?
    problem("access.#{name}.allow: has #{allow.size} prefixes, more than #{MAX_PREFIXES}") if allow.size > MAX_PREFIXES
    prefixes = allow.map { |text| parse_prefix("access.#{name}.allow", text) }
    return nil unless prefixes.all?

    prefixes.zip(allow).combination(2) do |(one, a), (two, b)|
      problem("access.#{name}.allow: #{a} and #{b} overlap") if one.include?(two) || two.include?(one)
    end
    prefixes
  end

  # The result is kept, so that a wrong network is reported only once.
  def parse(key)
    @parsed ||= {}
    @parsed.fetch(key) { @parsed[key] = parse_prefix(key, @settings[key]) }
  end

  def parse_prefix(key, text)
    return problem("#{key}: #{text.inspect} is not an IPv4 prefix such as 10.244.0.0/16") && nil unless text.is_a?(String) && text.match?(%r{\A[0-9.]+/[0-9]+\z})

    prefix = IPAddr.new(text, Socket::AF_INET)
    problem("#{key}: #{text} has host bits; write #{prefix}/#{prefix.prefix}") if text.split("/").first != prefix.to_s
    prefix
  rescue IPAddr::Error
    problem("#{key}: #{text.inspect} is not an IPv4 prefix such as 10.244.0.0/16") && nil
  end
end
