# What has no default must be decided; terraform.tfvars.example shows it.

variable "name" {
  description = "Name of the installation: prefix of all names, of the parameters below /<name>/, and the namespace of its metrics."
  type        = string
  default     = "btc"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,19}$", var.name)) && !can(regex("^(aws|ssm)", var.name))
    error_message = "The name must be 2 to 20 lower-case letters, digits and hyphens, begin with a letter, and not with aws or ssm."
  }
}

variable "region" {
  description = "AWS region, such as eu-central-1. The landing bucket must lie in it: a gateway endpoint reaches no other."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2,4}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "The region must look like eu-central-1."
  }
}

variable "tags" {
  description = "Tags of everything, beside Project and ManagedBy."
  type        = map(string)
  default     = {}
}

variable "break_glass_role_arns" {
  description = "Roles that reach the data in our buckets from outside the VPC, for emergencies. Without one, nobody could."
  type        = list(string)

  validation {
    condition = length(var.break_glass_role_arns) > 0 && alltrue([
      for arn in var.break_glass_role_arns : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+$", arn))
    ])
    error_message = "Name at least one role by its full ARN, such as arn:aws:iam::123456789012:role/break-glass; no wildcards."
  }
}

# Network

variable "vpc_cidr" {
  description = "IPv4 range of the VPC that is created, /16 to /26. Its first quarter becomes the host's subnet."
  type        = string
  default     = "10.20.0.0/24"

  validation {
    condition     = can(cidrsubnet(var.vpc_cidr, 2, 0)) && try(tonumber(split("/", var.vpc_cidr)[1]) >= 16 && tonumber(split("/", var.vpc_cidr)[1]) <= 26, false)
    error_message = "The range must be an IPv4 CIDR from /16 to /26, such as 10.20.0.0/24."
  }
}

variable "availability_zone" {
  description = "Zone of the host and its data volume, which cannot move to another; the region's zone a by default. An existing network's subnet decides instead."
  type        = string
  default     = null

  validation {
    condition     = var.availability_zone == null ? true : startswith(var.availability_zone, var.region)
    error_message = "The availability zone must lie in the region, such as eu-central-1b in eu-central-1."
  }
}

variable "existing_network" {
  description = <<-TEXT
    A VPC to join instead of creating one. `route_table_id` is the one that the subnet uses; it may hold no route to the internet.
    `s3_endpoint_id` names a gateway endpoint for S3 that is there already (its policy stays as it is), and
    `endpoint_security_group_id` the security group of interface endpoints with private DNS that are there already, for all
    services in `interface_services` of endpoints.tf. What is not named is created.
  TEXT
  type = object({
    vpc_id                     = string
    subnet_id                  = string
    route_table_id             = string
    s3_endpoint_id             = optional(string)
    endpoint_security_group_id = optional(string)
  })
  default = null

  validation {
    condition = var.existing_network == null ? true : (
      startswith(var.existing_network.vpc_id, "vpc-")
      && startswith(var.existing_network.subnet_id, "subnet-")
      && startswith(var.existing_network.route_table_id, "rtb-")
      && startswith(coalesce(var.existing_network.s3_endpoint_id, "vpce-"), "vpce-")
      && startswith(coalesce(var.existing_network.endpoint_security_group_id, "sg-"), "sg-")
    )
    error_message = "The network is named by ids: vpc-…, subnet-…, rtb-…, and where they exist already vpce-… and sg-…."
  }
}

variable "client_security_group_ids" {
  description = "Security groups whose members may connect to PostgreSQL, in this VPC. The host itself needs none."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for id in var.client_security_group_ids : startswith(id, "sg-")])
    error_message = "Clients are named by the ids of their security groups, sg-…; address ranges are not accepted."
  }
}

# Host

variable "instance_type" {
  description = "Type of the host. 4 GB of memory and 2 vCPUs hold one symbol with all its candles and signals."
  type        = string
  default     = "t3.medium"

  validation {
    condition     = can(regex("^[a-z0-9-]+\\.[a-z0-9]+$", var.instance_type))
    error_message = "The instance type must look like t3.medium."
  }
}

variable "image_id" {
  description = "Image of the host. By default the newest of this account that bootstrap/packer made; with a package mirror, a plain Debian or Ubuntu image."
  type        = string
  default     = null

  validation {
    condition     = var.image_id == null ? var.package_mirror == null : startswith(var.image_id, "ami-")
    error_message = "The image must be ami-…, and one must be named together with a package mirror."
  }
}

variable "package_mirror" {
  description = <<-TEXT
    The other way to software without internet: a signed mirror in S3 that bootstrap/mirror_packages.sh made, in this region.
    `public_key` is the armoured key that signs it, as in file("mirror.asc"). The mirror's bucket policy must let anybody read
    below the prefix who comes through the endpoint (output `s3_endpoint_id`).
  TEXT
  type = object({
    bucket     = string
    prefix     = optional(string, "apt")
    public_key = string
  })
  default = null

  validation {
    condition     = var.package_mirror == null ? true : startswith(var.package_mirror.public_key, "-----BEGIN PGP PUBLIC KEY BLOCK-----")
    error_message = "The mirror's key must be an armoured public key, which begins with -----BEGIN PGP PUBLIC KEY BLOCK-----."
  }
}

variable "postgresql_version" {
  description = "Major version of PostgreSQL on the host."
  type        = number
  default     = 17

  validation {
    condition     = contains([15, 16, 17, 18], var.postgresql_version)
    error_message = "PostgreSQL must be 15, 16, 17 or 18."
  }
}

variable "data_volume_gb" {
  description = "Size of the data volume in GiB; it can be enlarged later, not made smaller."
  type        = number
  default     = 200

  validation {
    condition     = var.data_volume_gb >= 20 && var.data_volume_gb <= 16384
    error_message = "The data volume must have 20 to 16,384 GiB."
  }
}

variable "termination_protection" {
  description = "Set to false, and applied, only before the host is replaced. Its data volume stays in any case."
  type        = bool
  default     = true
}

# Buckets

variable "landing_bucket_name" {
  description = "Name of the landing bucket that is created; <name>-landing-<account> by default."
  type        = string
  default     = null
}

variable "existing_landing_bucket" {
  description = <<-TEXT
    A landing bucket to read instead of creating one; its policy and notifications stay its owner's (README.md says what to add).
    `account_id` is its owner where that is another account, `kms_key_arn` its key where its objects have one.
  TEXT
  type = object({
    name        = string
    account_id  = optional(string)
    kms_key_arn = optional(string)
  })
  default = null

  validation {
    condition     = var.existing_landing_bucket == null ? true : length(var.collectors.role_arns) == 0 && var.landing_bucket_name == null
    error_message = "Collectors and a name are for a landing bucket that is created here; leave them out beside an existing one."
  }
}

variable "landing_prefix" {
  description = "Where the landing zone begins in its bucket: empty, or a prefix that ends with a slash."
  type        = string
  default     = ""

  validation {
    condition     = var.landing_prefix == "" || can(regex("^[A-Za-z0-9][A-Za-z0-9_./-]*/$", var.landing_prefix))
    error_message = "The landing prefix must be empty or end with a slash, such as raw/, and have letters, digits and _./- only."
  }
}

variable "landing_feeds" {
  description = "The setting BTC_ASSETS_LANDING_FEEDS, prefix=SYMBOL:LABEL, comma-separated. The host reads below these prefixes only."
  type        = string
  default     = "Binance/BTCUSDT"

  validation {
    condition = alltrue([
      for feed in split(",", var.landing_feeds) : can(regex("^[A-Za-z0-9][A-Za-z0-9_./-]*(=[A-Za-z0-9_.:/-]+)?$", feed))
    ])
    error_message = "Feeds must look like Binance/BTCUSDT=BTCUSDT, separated by commas without spaces, of letters, digits and _./- only."
  }
}

variable "collectors" {
  description = <<-TEXT
    Who writes into the landing bucket that is created: roles, in this account or another, and where they come through VPC
    endpoints of their own, those; without endpoints they may come from anywhere. Nobody else writes.
  TEXT
  type = object({
    role_arns        = optional(list(string), [])
    vpc_endpoint_ids = optional(list(string), [])
  })
  default = {}

  validation {
    condition = alltrue(concat(
      [for arn in var.collectors.role_arns : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+$", arn))],
      [for id in var.collectors.vpc_endpoint_ids : startswith(id, "vpce-")],
    ))
    error_message = "Collectors are named by the full ARNs of their roles, without wildcards, and the ids of their endpoints, vpce-…."
  }
}

variable "backup_bucket_name" {
  description = "Name of the bucket for backups, models and Dagster's logs; <name>-backup-<account> by default."
  type        = string
  default     = null
}

variable "backup_prefix" {
  description = "Where pgBackRest's repository lies in the backup bucket."
  type        = string
  default     = "pgbackrest"

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9/_-]*[a-z0-9]$", var.backup_prefix)) && !contains(["models", "dagster"], split("/", var.backup_prefix)[0])
    error_message = "The backup prefix must be lower-case letters, digits, slashes, hyphens and underscores, begin and end with none of the latter three, and not be models or dagster."
  }
}

variable "noncurrent_days" {
  description = "Days for which overwritten and deleted objects can be brought back."
  type        = number
  default     = 14

  validation {
    condition     = var.noncurrent_days >= 1
    error_message = "Overwritten objects must be kept for at least one day."
  }
}

# Events and alarms

variable "live_seconds" {
  description = "How often the slice that is still open is loaded, in seconds (docs/automation.md); null loads slices when they are closed. Each time, its folders are listed: at 5 seconds for about 5 USD a month."
  type        = number
  default     = null

  validation {
    condition     = var.live_seconds == null ? true : var.live_seconds >= 1 && var.live_seconds <= 300 && floor(var.live_seconds) == var.live_seconds
    error_message = "The open slice can be loaded every 1 to 300 whole seconds."
  }
}

variable "landing_events" {
  description = "Whether S3 also tells an SQS queue what lands (docs/automation.md says what for), for about 7 USD a month."
  type        = bool
  default     = false
}

variable "alarm_email" {
  description = "Address that alarms are sent to, which must confirm it; more subscribers can join the topic in the output `alarm_topic_arn`."
  type        = string
  default     = null

  validation {
    condition     = var.alarm_email == null ? true : can(regex("^[^@ ]+@[^@ ]+$", var.alarm_email))
    error_message = "The address for alarms must look like team@example.org."
  }
}

variable "log_retention_days" {
  description = "Days for which session and flow logs are kept."
  type        = number
  default     = 365
}
