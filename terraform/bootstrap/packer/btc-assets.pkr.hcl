# The image of the host: Debian 13 with PostgreSQL, TimescaleDB, pgvector, pgBackRest and this project installed, and nothing set up.
# It is built in a VPC with a way to the internet, in which no host of ours runs; the host that starts from it needs none.

packer {
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = "~> 1.3"
    }
  }
}

variable "region" {
  type        = string
  description = "Region of the host."
}

variable "subnet_id" {
  type        = string
  description = "Subnet with a way to the internet, by a NAT gateway or a public address, in which the image is built."
}

variable "instance_profile" {
  type        = string
  description = "Instance profile with AmazonSSMManagedInstanceCore: Packer reaches the machine by Session Manager, so it needs no open port."
}

variable "postgresql" {
  type        = number
  default     = 17
  description = "Major version of PostgreSQL; the same as Terraform's `postgresql_version`."
}

variable "kms_key_id" {
  type        = string
  default     = null
  description = "Key that encrypts the image; the account's default key for volumes if none is named."
}

source "amazon-ebs" "debian" {
  region               = var.region
  subnet_id            = var.subnet_id
  iam_instance_profile = var.instance_profile
  instance_type        = "t3.medium"
  ami_name             = "btc-assets-pg${var.postgresql}-${formatdate("YYYYMMDD-hhmmss", timestamp())}" # host.tf takes the newest btc-assets-*
  ami_description      = "btc_assets: PostgreSQL ${var.postgresql}, TimescaleDB, pgvector, pgBackRest and Dagster on Debian 13"

  source_ami_filter {
    owners      = ["136693071363"] # Debian's own
    most_recent = true
    filters = {
      name                = "debian-13-amd64-*"
      architecture        = "x86_64"
      virtualization-type = "hvm"
      root-device-type    = "ebs"
    }
  }

  encrypt_boot = true
  kms_key_id   = var.kms_key_id
  imds_support = "v2.0"

  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  # Debian's images come without the agent of Session Manager: the machine that is built has to fetch it before it can be reached.
  user_data_file = "${path.root}/ssm_agent.sh"
  ssh_username   = "admin"
  ssh_interface  = "session_manager"
  communicator   = "ssh"
  ssh_timeout    = "15m"

  tags = {
    Project = "btc-assets"
  }
}

build {
  sources = ["source.amazon-ebs.debian"]

  provisioner "shell-local" {
    inline = ["git -C ${path.root}/../../.. archive --output /tmp/btc-assets.tar HEAD"]
  }

  provisioner "file" {
    source      = "/tmp/btc-assets.tar"
    destination = "/tmp/btc-assets.tar"
  }

  provisioner "shell" {
    execute_command = "sudo env {{ .Vars }} bash -eu '{{ .Path }}'"
    inline = [
      "cloud-init status --wait",
      "install -d /opt/btc-assets",
      "tar --extract --no-same-owner --file /tmp/btc-assets.tar --directory /opt/btc-assets",
      "apt-get update --quiet=2",
      "DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes awscli",
      "/opt/btc-assets/terraform/bootstrap/setup_timescale.sh --install-only --postgresql ${var.postgresql}",
      # What the next machine is to make for itself.
      "rm -rf /tmp/btc-assets.tar /var/lib/apt/lists/* /etc/ssh/ssh_host_* /home/admin/.ssh /root/.ssh",
      "truncate --size 0 /etc/machine-id",
      "cloud-init clean --logs",
    ]
  }
}
